package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

func TestARestoredDatabaseIsAdoptedOrSeparated(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c := i.newClient(&pages{})
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, c.Stop(t.Context()))
	i.execSQL(`update delta_installation set place = '1/2'`) // as a dump has it
	require.ErrorIs(t, i.newClient(&pages{}).Start(t.Context()), delta.ErrRestoredDatabase)
	r := i.run("doctor")
	require.Contains(t, r.stdout, "delta restored adopt")
	require.Equal(t, exitUsage, i.run("restored", "adopt").code, "there is nobody to ask")

	r = i.run("restored", "adopt", "--yes")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stdout, "the database takes the place of the original")
	i.startController(&pages{})

	i.execSQL(`update delta_installation set place = '1/2'`)
	r = i.run("restored", "separate", "--yes")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stdout, "an installation of its own")
	require.ErrorIs(t, i.newClient(&pages{}).Start(t.Context()), delta.ErrOtherInstallation)
}
