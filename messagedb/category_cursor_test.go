package messagedb_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/internal/soak"
	"github.com/chariot-giving/delta/messagedb"
)

// otherProcess returns another client of the same store. Its cursors have a claim for claimLasts, and take over the claim of a cursor that was silent for
// takesAfter.
func otherProcess(t *testing.T, s *store, claimLasts, takesAfter time.Duration) *messagedb.Client {
	t.Helper()
	client, err := messagedb.NewClient(s.pool, &messagedb.Config{Logger: quiet})
	require.NoError(t, err)
	client.SetClaim(claimLasts, takesAfter)
	return client
}

var cursorConfig = messagedb.ConsumerConfig{Category: "a", Identifier: "x", BatchSize: 10, Polling: messagedb.IdlePolling(5 * time.Millisecond)}

func openCursor(t *testing.T, client *messagedb.Client, change ...func(*messagedb.ConsumerConfig)) *messagedb.CategoryCursor {
	t.Helper()
	config := cursorConfig
	for _, c := range change {
		c(&config)
	}
	cursor, err := client.OpenCategory(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(cursor.Close)
	return cursor
}

// next reads n messages.
func next(t *testing.T, cursor *messagedb.CategoryCursor, n int) (all []*messagedb.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for len(all) < n {
		page, err := cursor.Next(ctx)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), 10)
		all = append(all, page...)
	}
	return all
}

func positionsOf(t *testing.T, s *store, cursor *messagedb.CategoryCursor) []*messagedb.Message {
	t.Helper()
	all, err := s.client.ReadStream(t.Context(), cursor.PositionStream(), messagedb.StreamOptions{})
	require.NoError(t, err)
	return all
}

// takeOver writes a position like the cursor of another process.
func takeOver(t *testing.T, s *store, cursor *messagedb.CategoryCursor, position int64) {
	t.Helper()
	_, err := s.client.WriteMessage(t.Context(), cursor.PositionStream(), messagedb.ProposedMessage{
		Type: "Recorded", Data: map[string]any{"position": position}, Metadata: map[string]any{"run": messagedb.NewID(), "claimed": true},
	}, messagedb.AnyVersion)
	require.NoError(t, err)
}

func TestACursorGoesOnBehindWhatWasSaved(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		all := fillCategory(t, s, "a", 3, 10)
		first := openCursor(t, s.client)
		require.Equal(t, messagedb.StreamName("a:position-x"), first.PositionStream())
		require.Equal(t, all[:20], next(t, first, 20))
		require.NoError(t, first.Save(t.Context(), all[14]))
		first.Close()
		first.Close()
		_, err := first.Next(t.Context())
		require.ErrorContains(t, err, "the cursor is closed")
		require.ErrorContains(t, first.Save(t.Context(), all[15]), "the cursor is closed")

		second := openCursor(t, s.client) // at once, as the first was closed
		require.Equal(t, all[15:], next(t, second, 15))
		require.NoError(t, second.Save(t.Context(), all[29]))
		second.Close()
		// A cursor with its own loop continues there, inclusively.
		j := &journal{}
		c := newTestConsumer(t, s, messagedb.ConsumerConfig{Category: "a", Identifier: "x", Handler: j.handle})
		lag, err := c.Lag(t.Context())
		require.NoError(t, err)
		require.Zero(t, lag.Messages)
		runConsumer(t, c)
		waitHandled(t, c, 1)
		require.Equal(t, all[29:], j.handledMessages())
	})
}

func TestACursorThatHasNothingToReadWritesNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	client := otherProcess(t, s, 30*time.Millisecond, time.Hour)
	cursor := openCursor(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := cursor.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, positionsOf(t, s, cursor), 1, "the claim")
	require.NoError(t, ctxErr(cursor.Done()), "nothing was to be done, so nothing was lost")
}

// ctxErr is an error if the channel is closed.
func ctxErr(done <-chan struct{}) error {
	select {
	case <-done:
		return context.Canceled
	default:
		return nil
	}
}

func TestOneOfTwoCursorsReadsAndTheOtherGoesOnWhenThatIsSilent(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s := newStore(t)
	first := openCursor(t, s.client)
	all := fillCategory(t, s, "a", 1, 8)
	require.Equal(t, all, next(t, first, 8))
	require.NoError(t, first.Save(t.Context(), all[7]))
	opened := make(chan *messagedb.CategoryCursor)
	other := otherProcess(t, s, time.Hour, 100*time.Millisecond)
	before := s.pool.Stat().AcquireCount()
	go func() {
		cursor, err := other.OpenCategory(t.Context(), cursorConfig)
		if err != nil {
			t.Error(err)
		}
		opened <- cursor
	}()
	require.Eventually(t, func() bool { return s.pool.Stat().AcquireCount() > before }, soon, time.Millisecond, "the other has not begun to look")
	select {
	case <-opened:
		t.Fatal("there was nothing to read, so the silence of the first says nothing")
	case <-time.After(2 * time.Second):
	}
	// The first cursor does not read the new messages, as if its process had died.
	all = fillCategory(t, s, "a", 2, 8)
	second := take(t, opened)
	t.Cleanup(second.Close)
	require.Equal(t, all[8:], next(t, second, 16))
	require.NoError(t, second.Save(t.Context(), all[23]))

	// The first cursor continues, but can do no harm.
	require.ErrorIs(t, first.Save(t.Context(), all[3]), messagedb.ErrConsumerSuperseded)
	take(t, first.Done())
	_, err := first.Next(t.Context())
	require.ErrorIs(t, err, messagedb.ErrConsumerSuperseded)
	first.Close()
	require.NoError(t, ctxErr(second.Done()))
	positions := positionsOf(t, s, second)
	require.JSONEq(t, string(positions[len(positions)-1].Data), jsonOf(t, map[string]any{"position": all[23].GlobalPosition}))
}

// An idle cursor finds out that another one has the consumer, before it returns messages that the other one has already read.
func TestACursorThatWasIdleLooksAtItsClaimBeforeItReturnsMessages(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cursor := openCursor(t, otherProcess(t, s, 30*time.Millisecond, time.Hour))
	time.Sleep(100 * time.Millisecond) // longer than the claim lasts
	takeOver(t, s, cursor, 0)
	fillCategory(t, s, "a", 1, 1)
	_, err := cursor.Next(t.Context())
	require.ErrorIs(t, err, messagedb.ErrConsumerSuperseded)
}

func TestAClaimIsRenewedWhileHandlingOrElseLost(t *testing.T) {
	soak.Long(t)
	t.Parallel()
	s := newStore(t)
	const lasts = 2 * time.Minute // and a stall of less than half a minute loses no claim whose renewal is due
	cursor := openCursor(t, otherProcess(t, s, lasts, time.Hour))
	all := fillCategory(t, s, "a", 1, 2)
	next(t, cursor, 2)
	before := len(positionsOf(t, s, cursor))
	cursor.AgeClaim(lasts / 3)
	require.Eventually(t, func() bool { return len(positionsOf(t, s, cursor)) > before }, soon, 10*time.Millisecond)
	require.NoError(t, ctxErr(cursor.Done()))

	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) //nolint:errcheck // it only reads
	_, err = s.client.InTx(tx).AcquireLock(t.Context(), cursor.PositionStream())
	require.NoError(t, err)
	saving := make(chan error, 1)
	go func() { saving <- cursor.Save(context.WithoutCancel(t.Context()), all[1]) }()
	require.NoError(t, ctxErr(cursor.Done()))
	cursor.AgeClaim(lasts * 2 / 3)
	take(t, cursor.Done())
	require.ErrorIs(t, take(t, saving), messagedb.ErrConsumerSuperseded)
}

// Calls are cancelled at random moments, so that the server executes some of them although the caller gets no answer.
func TestASaveWithoutAnAnswerIsNoOtherProcess(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cursor := openCursor(t, otherProcess(t, s, time.Hour, time.Hour))
	all := fillCategory(t, s, "a", 1, 60)
	next(t, cursor, 60)
	lost := 0
	for _, m := range all {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(3000))*time.Microsecond)
		if err := cursor.Save(ctx, m); err != nil {
			require.NotErrorIs(t, err, messagedb.ErrConsumerSuperseded)
			lost++
		}
		cancel()
	}
	require.NoError(t, cursor.Save(t.Context(), all[59]))
	positions := positionsOf(t, s, cursor)
	require.JSONEq(t, string(positions[len(positions)-1].Data), jsonOf(t, map[string]any{"position": all[59].GlobalPosition}))
	require.True(t, slices.IsSortedFunc(positions, func(a, b *messagedb.Message) int { return int(a.Position - b.Position) }))
	t.Logf("%d of 60 answers were lost", lost)
}

func TestACursorOfAStoreThatHasGoneBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *store) {
		restart := func(c *messagedb.ConsumerConfig) { c.Rewind = messagedb.RewindRestart }
		all := fillCategory(t, s, "a", 1, 5)
		cursor := openCursor(t, s.client, restart)
		require.Equal(t, all, next(t, cursor, 5))
		emptyStore(t, s)
		rewound := new(messagedb.RewoundError)
		_, err := cursor.Next(t.Context())
		require.ErrorAs(t, err, &rewound, "also with RewindRestart: the caller has to forget what it has read")
		take(t, cursor.Done())
		require.ErrorAs(t, cursor.Save(t.Context(), all[4]), &rewound)
		cursor.Close()
		require.Empty(t, positionsOf(t, s, cursor))

		// An earlier position, as in a database that was restored from a backup.
		takeOver(t, s, cursor, 1000)
		_, err = s.client.WriteMessage(t.Context(), cursor.PositionStream(), messagedb.ProposedMessage{
			Type: "Recorded", Data: map[string]any{"position": 1000}, Metadata: map[string]any{"run": "gone"},
		}, messagedb.AnyVersion)
		require.NoError(t, err)
		config := cursorConfig
		_, err = s.client.OpenCategory(t.Context(), config)
		require.ErrorAs(t, err, &rewound)
		again := fillCategory(t, s, "a", 1, 3)
		cursor = openCursor(t, s.client, restart)
		require.Equal(t, again, next(t, cursor, 3))
		require.NoError(t, cursor.Save(t.Context(), again[1]))
		cursor.Close()
		require.Equal(t, again[2:], next(t, openCursor(t, s.client), 1))
	})
}

func TestACursorHasNoHandler(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	config := cursorConfig
	config.Handler = func(context.Context, *messagedb.Message) error { return nil }
	_, err := s.client.OpenCategory(t.Context(), config)
	bad := new(messagedb.InvalidError)
	require.ErrorAs(t, err, &bad)
	require.Equal(t, messagedb.FieldHandler, bad.Field)
	_, err = s.client.OpenCategory(t.Context(), messagedb.ConsumerConfig{Category: "a-1"})
	require.ErrorAs(t, err, &bad)
	require.Equal(t, messagedb.FieldCategory, bad.Field)
}

// Several cursors open at once, and again when one closes: each message is handled once, in order.
func TestCursorsThatOpenAtOnceTakeTurns(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	all := fillCategory(t, s, "a", 1, 40)
	handled := make(chan string, 2*len(all))
	for range 4 {
		client := otherProcess(t, s, time.Hour, time.Hour)
		go func() {
			for {
				cursor, err := client.OpenCategory(t.Context(), cursorConfig)
				if err != nil {
					return // the test has ended
				}
				page, err := cursor.Next(t.Context())
				if err == nil {
					handled <- page[0].ID
					_ = cursor.Save(t.Context(), page[0])
				}
				cursor.Close()
			}
		}()
	}
	for _, m := range all[:8] { // each turn waits for one look at the claim
		require.Equal(t, m.ID, take(t, handled))
	}
}
