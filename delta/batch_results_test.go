package delta_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
)

// Results that could not be written are written with the next ones.
func TestABatchThatCouldNotWriteResultsWritesThemWithTheNext(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Pool.Exec(t.Context(), `CREATE SEQUENCE failures;
		CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			PERFORM nextval('failures');
			RAISE EXCEPTION 'the test has it fail';
		END $$;
		CREATE TRIGGER fails BEFORE UPDATE ON delta_resource FOR EACH ROW WHEN (NEW.state = 'synced') EXECUTE FUNCTION fail()`)
	require.NoError(t, err)
	mended := make(chan struct{})
	c := h.client(h.config(with(&controller[herd]{work: func(_ context.Context, r *delta.Resource[herd]) error {
		if strings.HasPrefix(r.ObjectID, "later") {
			<-mended
		}
		return nil
	}})))
	all := append(names("early", 40), names("later", 40)...)
	_, err = c.InformMany(t.Context(), makeObjects(func(a account) herd { return herd{a} }, all...), nil)
	require.NoError(t, err)
	batch := h.leaseBatch("herd", time.Hour)
	require.Equal(t, 80, batch.IDs.Len())
	go func() {
		defer close(mended)
		for h.countRows("SELECT last_value FROM failures WHERE is_called UNION ALL SELECT 0 LIMIT 1") == 0 {
			time.Sleep(time.Millisecond)
		}
		_, err := h.Pool.Exec(context.Background(), "DROP TRIGGER fails ON delta_resource")
		if err != nil {
			t.Error(err)
		}
	}()
	step, err := c.ActivitiesOf(batch.Installation, "herd").AttemptBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, 80, step.Synced)
	require.Equal(t, 80, step.Resting)
	for _, name := range all {
		row := h.row("herd", name)
		require.True(t, synced(1)(row))
		require.Equal(t, 1, row.Attempt)
		require.Empty(t, row.Errors)
	}
}
