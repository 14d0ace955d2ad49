package sinks_test

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/cdc"
	"github.com/chariot-giving/delta/internal/cdctest"
	"github.com/chariot-giving/delta/sinks"
)

var withoutLSN = regexp.MustCompile(`,"lsn":"[^"]*"`)

// newPublishedSlot creates a slot and a publication of all tables.
func newPublishedSlot(t *testing.T, d *cdctest.Database) {
	t.Helper()
	require.NoError(t, cdc.CreatePublication(t.Context(), d.Pool, cdc.Publication{Name: d.Name, AllTables: true}))
	_, err := cdc.CreateSlot(t.Context(), d.Pool, d.Name, cdc.SlotOptions{})
	require.NoError(t, err)
}

func openStream(t *testing.T, d *cdctest.Database) *cdc.Stream {
	t.Helper()
	stream, err := cdc.Open(t.Context(), cdc.Config{
		Conn: d.Config(), Slot: d.Name, Publications: []string{d.Name}, StatusInterval: 100 * time.Millisecond, OnlyAcknowledged: true,
	})
	require.NoError(t, err)
	t.Cleanup(stream.Close)
	return stream
}

func TestChangesOfTablesAreDeliveredWithTheirKeys(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	d.Exec(`create table "Order" (region text, id int, total numeric, paid bool, primary key (region, id))`,
		`create table note (text text)`, `alter table note replica identity full`)
	newPublishedSlot(t, d)
	sink := &recorder{}
	startRelay(t, quickConfig(sinks.NewStreamSource(openStream(t, d), sinks.StreamConfig{Name: "slot"}), sink))
	d.Exec(`insert into "Order" values ('a/b', 1, 1.50, true)`,
		`update "Order" set total = null, paid = false`,
		`update "Order" set id = 2`,
		`delete from "Order"`,
		`truncate "Order"`,
		`insert into note values ('x')`,
		`select pg_logical_emit_message(true, 'prefix', 'content')`)
	awaitTrue(t, func() bool { return len(sink.acceptedIDs()) == 8 })
	sink.mu.Lock()
	defer sink.mu.Unlock()
	slices.SortStableFunc(sink.accepted, func(a, b sinks.Message) int { // there is no order between keys
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID))
	})
	var seen []string
	for _, m := range sink.accepted {
		seen = append(seen, fmt.Sprintf("%s %s %s %s", m.Type, m.Subject, m.Key, withoutLSN.ReplaceAllString(string(m.Body), "")))
	}
	one, two := `public.Order/a%2Fb/1`, `public.Order/a%2Fb/2`
	require.Equal(t, []string{
		`insert public.Order ` + one + ` {"kind":"insert","schema":"public","table":"Order","key":{"region":"a/b","id":1},"new":{"region":"a/b","id":1,"total":"1.50","paid":true}}`,
		`update public.Order ` + one + ` {"kind":"update","schema":"public","table":"Order","key":{"region":"a/b","id":1},"new":{"region":"a/b","id":1,"total":null,"paid":false}}`,
		`delete public.Order ` + one + ` {"kind":"delete","schema":"public","table":"Order","key":{"region":"a/b","id":1}}`,
		`insert public.Order ` + two + ` {"kind":"insert","schema":"public","table":"Order","key":{"region":"a/b","id":2},"new":{"region":"a/b","id":2,"total":null,"paid":false}}`,
		`delete public.Order ` + two + ` {"kind":"delete","schema":"public","table":"Order","key":{"region":"a/b","id":2}}`,
		`truncate public.Order  {"kind":"truncate","schema":"public","table":"Order"}`,
		`insert public.note public.note {"kind":"insert","schema":"public","table":"note","key":{"text":"x"},"new":{"text":"x"}}`,
		`message prefix  {"kind":"message","prefix":"prefix","content":"content"}`,
	}, seen)
	require.Regexp(t, `^slot:[0-9A-F]+/[0-9A-F]+-0$`, sink.accepted[0].ID)
	require.Equal(t, map[string]string{sinks.HeaderNewKey: two}, sink.accepted[2].Headers)
}

// A relay that stops in the middle of a transaction continues after the last completely delivered transaction, with the same ids.
func TestASlotAdvancesOnlyPastDeliveredTransactions(t *testing.T) {
	t.Parallel()
	d := cdctest.New(t)
	d.Exec(`create table item (id int primary key, n int)`)
	newPublishedSlot(t, d)
	d.Exec(`insert into item select i, 0 from generate_series(1, 10) i`, `update item set n = n + 1`, `update item set n = n + 1`)
	var healed atomic.Bool
	sink := &recorder{fail: func(m sinks.Message) error {
		if m.Key == "public.item/7" && m.Type == "update" && !healed.Load() {
			return errors.New("not now")
		}
		return nil
	}}
	stream := openStream(t, d)
	config := quickConfig(sinks.NewStreamSource(stream, sinks.StreamConfig{}), sink)
	config.BatchSize = 3
	_, stop := startRelay(t, config)
	awaitTrue(t, func() bool { return len(sink.acceptedIDs()) == 28 })
	require.NoError(t, stop())
	stream.Close()
	accepted := slices.Clone(sink.accepted)

	healed.Store(true)
	again := &recorder{}
	config = quickConfig(sinks.NewStreamSource(openStream(t, d), sinks.StreamConfig{}), again)
	relay, stop := startRelay(t, config)
	awaitTrue(t, func() bool { return len(again.acceptedIDs()) == 20 && relay.Stats().Unconfirmed == 0 })
	require.NoError(t, stop())
	for _, m := range again.accepted {
		require.Equal(t, "update", m.Type, "the first transaction was confirmed")
	}
	for _, m := range accepted {
		if m.Type == "update" {
			require.Contains(t, again.acceptedIDs(), m.ID)
		}
	}
}
