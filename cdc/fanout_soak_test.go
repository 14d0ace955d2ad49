package cdc_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/internal/soak"
)

// rowsOf returns the rows of a table with two columns, in the order of the first.
func rowsOf(r *replica) (all []string) {
	for _, row := range r.rows {
		all = append(all, row[0].Text+" "+row[1].Text)
	}
	slices.SortFunc(all, func(a, b string) int {
		var i, j int
		_, _ = fmt.Sscan(a, &i)
		_, _ = fmt.Sscan(b, &j)
		return cmp.Compare(i, j)
	})
	return all
}

// Consumers read, acknowledge, detach and attach at random, and the process restarts. Each keeps a copy of the table
// together with its position. The copies must miss nothing, and no change may be delivered twice.
func TestSoakOfConsumersThatShareASlot(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	d := newDatabase(t)
	d.exec(`create table t (id int primary key, v int)`)
	names := []string{"a", "b", "c"}
	open := func() *cdc.Fanout { return d.openFanout(func(c *cdc.FanoutConfig) { c.Consumers = names }) }
	f := open()
	type stored struct {
		copy     *replica
		position cdc.LSN
	}
	all := map[string]*stored{}
	for _, name := range names {
		all[name] = &stored{copy: newReplica("id")}
	}
	consume := func(ctx context.Context, f *cdc.Fanout, name string, turns int) error {
		c, err := f.Attach(name, all[name].position)
		if err != nil {
			return err
		}
		defer c.Close()
		for range turns {
			transaction, err := c.Next(ctx)
			if err != nil {
				return err
			}
			for change, err := range transaction.Changes() {
				if err != nil {
					return err
				}
				if err := all[name].copy.apply(change); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			all[name].position = transaction.EndLSN
			if rand.IntN(3) > 0 {
				if err := c.Ack(transaction.EndLSN); err != nil {
					return err
				}
			}
		}
		return nil
	}
	rounds := 0
	for end := time.Now().Add(soak.Time(t, 5*time.Second)); time.Now().Before(end) || rounds < 5; rounds++ {
		statements := make([]string, 0, 50)
		for range 50 {
			id := rand.IntN(40)
			statements = append(statements,
				fmt.Sprintf(`insert into t values (%d, %d) on conflict (id) do update set v = excluded.v + 1`, id, rand.IntN(1000)),
				fmt.Sprintf(`delete from t where id = %d`, rand.IntN(40)))
		}
		d.exec(statements...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		errs := make(chan error, len(names))
		for _, name := range names {
			turns := rand.IntN(60)
			go func() { errs <- consume(ctx, f, name, turns) }()
		}
		for range names {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				require.NoError(t, err)
			}
		}
		cancel()
		if rand.IntN(4) == 0 {
			f.Close()
			f = open()
		}
	}
	d.exec(`insert into t values (-1, 0)`)
	ctx, cancel := context.WithTimeout(t.Context(), cdctest.Patience)
	defer cancel()
	for _, name := range names {
		for all[name].copy.rows[`"-1"`] == nil {
			require.NoError(t, consume(ctx, f, name, 1))
		}
		require.Equal(t, queryValue[[]string](d, `select array_agg(id || ' ' || v order by id) from t`), rowsOf(all[name].copy), name)
	}
	t.Logf("%d rounds", rounds)
}
