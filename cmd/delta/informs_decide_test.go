package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestWithheldDeletionsAreShownAndDecided(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.inform(i.newClient(nil), deltatype.ResourceStateScheduled, nil, "a")
	i.execSQL(`insert into delta_controller (name, inform_interval) values ('account', '1h')`)
	i.execSQL(`insert into delta_withheld (kind, missing, total, reason) values ('page', 1200, 1500, 'a listing leaves out suspiciously much')`)

	r := i.run("kinds")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Contains(t, r.stderr, "page: the listings leave out 1,200 of 1,500 resources")
	require.Contains(t, r.stderr, "(a listing leaves out suspiciously much): none is marked deleted")
	require.Contains(t, r.stderr, "delta informs approve page")
	require.EqualValues(t, 1200, decode[kindsJSON](t, i.run("kinds", "-o", "json")).Kinds[1].Informer.Withheld.Missing)
	r = i.run("doctor")
	require.Contains(t, r.stdout, "deletions page")
	require.Contains(t, r.stdout, "delta informs dismiss page")
	require.Contains(t, r.stdout, "(a listing leaves out suspiciously much)")

	require.Equal(t, exitUsage, i.run("informs", "approve", "page").code, "there is nobody to ask")
	r = i.run("informs", "dismiss", "page", "--yes")
	require.Equal(t, result{exitOK, "1,200 of 1,500: what the listings of page leave out is kept\n", ""}, r)
	require.NotContains(t, i.run("doctor").stdout, "deletions page")
	require.NotContains(t, i.run("kinds").stderr, "leave out")
	r = i.run("informs", "approve", "page", "--yes", "-o", "json")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Equal(t, "approved", decode[withheldJSON](t, r).Decision)

	r = i.run("informs", "approve", "account", "--yes")
	require.Equal(t, exitNotFound, r.code)
	require.Contains(t, r.stderr, "left out no more than may be deleted")
	require.Equal(t, exitNotFound, i.run("informs", "approve", "pgae", "--yes").code)
}
