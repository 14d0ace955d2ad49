package activities_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/chariot-giving/delta/activities"
	"github.com/chariot-giving/delta/delta/deltatype"
)

func TestAPassWritesInPagesWhatItLists(t *testing.T) {
	t.Parallel()
	const many = 1201 // two full pages and a rest
	var items []activities.Listed
	for i := range many {
		items = append(items, item(object(fmt.Sprint(i), "1")))
	}
	h := newInformer(t, lists(items...))
	var informed, scheduled atomic.Int64
	h.Informed = func(k string, due int) {
		require.Equal(t, kind, k)
		informed.Add(1)
		scheduled.Add(int64(due))
	}
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: many, Scheduled: many}, progress)
	require.GreaterOrEqual(t, informed.Load(), int64(3), "each page is dispatched when it is written")
	require.Less(t, informed.Load(), int64(many/10))
	require.EqualValues(t, many, scheduled.Load())
	var rows, attempts int
	require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*), max(max_attempts) FROM delta_resource").Scan(&rows, &attempts))
	require.Equal(t, many, rows)
	require.Equal(t, 10, attempts)

	// Nothing has changed: nothing to write, nobody to wake.
	informed.Store(0)
	progress, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: many}, progress)
	require.Zero(t, informed.Load())
}

func TestASlowListingIsWrittenWhileItGoesOn(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	h := newInformer(t, func(context.Context, deltatype.InformOptions) <-chan activities.Listed {
		out := make(chan activities.Listed)
		go func() {
			defer close(out)
			out <- item(object("a", "1"))
			<-goOn
			out <- item(object("b", "1"))
		}()
		return out
	})
	informed := make(chan string, 10)
	h.Informed = func(k string, _ int) { informed <- k }
	done := make(chan error)
	go func() {
		_, err := h.pass()
		done <- err
	}()
	<-informed
	require.NotNil(t, h.row(h.ref("a")), "the page waits for the end of the listing")
	require.Zero(t, h.cursor().Unix(), "the cursor moves before the end of the listing")
	close(goOn)
	require.NoError(t, <-done)
	require.NotNil(t, h.row(h.ref("b")))
}

func TestTheNextPassAsksForObjectsNewerThanTheLastStart(t *testing.T) {
	t.Parallel()
	var asked deltatype.InformOptions
	var start time.Time
	h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		asked, start = o, time.Now()
		return lists(item(object("a", "1")))(ctx, o)
	})
	before := time.Now()
	_, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, time.Unix(0, 0).UTC(), *asked.After, "the first pass asks for all")
	cursor := h.cursor()
	require.False(t, cursor.Before(before.Truncate(time.Microsecond)))
	require.False(t, cursor.After(start), "what is created while a pass lists would be missed by all")

	_, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, cursor, *asked.After)
	require.Equal(t, time.UTC, asked.After.Location())
	require.True(t, h.cursor().After(cursor))
}

func TestTheNextPassGoesOnFromTheLatestCreation(t *testing.T) {
	t.Parallel()
	latest := time.Date(2024, 5, 6, 7, 8, 9, 0, time.FixedZone("", 3600))
	h := newInformer(t, lists(
		createdAt(object("a", "1"), latest.Add(-hour)), createdAt(object("b", "1"), latest),
		createdAt(object("c", "1"), latest.Add(-time.Minute)), item(object("d", "1")),
	))
	_, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, latest.UTC(), h.cursor())
	require.Equal(t, latest.UTC(), *h.row(h.ref("b")).ExternalCreatedAt)

	// It never moves back.
	h.handler.inform = lists(createdAt(object("e", "1"), latest.Add(-2*hour)))
	_, err = h.pass()
	require.NoError(t, err)
	require.Equal(t, latest.UTC(), h.cursor())
}

func TestWhatAPassIsAskedForReachesTheInformer(t *testing.T) {
	t.Parallel()
	var asked deltatype.InformOptions
	h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
		asked = o
		return lists()(ctx, o)
	})
	_, err := h.pass()
	require.NoError(t, err)
	require.NotZero(t, h.cursor().Unix(), "there is a cursor to be overruled")
	after := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	options := deltatype.InformOptions{Labels: map[string]string{"k": "v"}, After: &after, Limit: 3, OrderBy: "created_at DESC"}
	_, err = h.pass(func(in *activities.InformInput) { in.Options = options })
	require.NoError(t, err)
	require.Equal(t, options, asked)
}

func TestAnIncompletePassKeepsWhatItWroteAndLeavesTheCursor(t *testing.T) {
	t.Parallel()
	var page []activities.Listed
	for i := range 500 {
		page = append(page, createdAt(object(fmt.Sprint(i), "1"), time.Now()))
	}
	type ending = func(ctx context.Context, out chan<- activities.Listed)
	breaksOff := func(_ context.Context, out chan<- activities.Listed) {
		out <- activities.Listed{Err: errors.New("the listing broke off"), Fatal: true}
		close(out)
	}
	forEver := func(ctx context.Context, _ chan<- activities.Listed) { <-ctx.Done() }
	closes := func(ctx context.Context, out chan<- activities.Listed) {
		<-ctx.Done()
		close(out)
	}
	for name, c := range map[string]struct {
		items   []activities.Listed
		end     ending
		timeout time.Duration // the shortest that is tried
		stop    bool
		says    string
	}{
		"error":              {page, breaksOff, 0, false, "the listing broke off"},
		"timeout":            {page, forEver, 300 * time.Millisecond, false, "the pass timed out after "},
		"closed at timeout":  {page, closes, 300 * time.Millisecond, false, "the pass timed out after "},
		"client stops":       {page, forEver, 0, true, "context canceled"},
		"closed at the stop": {page, closes, 0, true, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h *harness
			for timeout := c.timeout; ; timeout *= 2 {
				// The listing ends once all of the page is written, in however many parts a slow machine writes it.
				written := make(chan struct{})
				h = newInformer(t, func(ctx context.Context, _ deltatype.InformOptions) <-chan activities.Listed {
					out := make(chan activities.Listed)
					go func() {
						for _, i := range c.items {
							select {
							case out <- i:
							case <-ctx.Done():
							}
						}
						select {
						case <-written:
						case <-ctx.Done():
						}
						c.end(ctx, out)
					}()
					return out
				})
				stopping, stop := context.WithCancel(t.Context())
				defer stop()
				h.Stopping = stopping
				h.Informed = func(string, int) {
					var rows int
					require.NoError(t, h.Pool.QueryRow(t.Context(), "SELECT count(*) FROM delta_resource").Scan(&rows))
					if rows < len(page) {
						return
					}
					close(written)
					if c.stop {
						stop()
					}
				}
				h.handler.passTimeout = timeout
				progress, err := h.pass()
				require.ErrorContains(t, err, c.says)
				require.ErrorContains(t, err, "informing kind thing")
				if timeout > 0 {
					require.ErrorContains(t, err, c.says+timeout.String())
				}
				select {
				case <-written:
				default:
					require.Positive(t, timeout, "the page is not written")
					require.Less(t, timeout, time.Minute, "the page is not written in good time")
					continue // the timeout was too short for this machine to write the page: the test has shown nothing
				}
				require.NotErrorAs(t, err, new(*temporal.ApplicationError), "it is worth repeating")
				require.GreaterOrEqual(t, progress.Listed, 500)
				require.Equal(t, 500, progress.Scheduled)
				break
			}
			require.NotNil(t, h.row(h.ref("499")))
			require.Zero(t, h.cursor().Unix())

			// The next one lists all again, and finds it unchanged.
			h.handler.inform, h.handler.passTimeout, h.Stopping = lists(page...), 0, nil
			progress, err := h.pass()
			require.NoError(t, err)
			require.Equal(t, activities.InformProgress{Listed: 500}, progress)
			require.NotZero(t, h.cursor().Unix())
		})
	}
}

// The end of the listing and the end of its context can be there at once: the pass must look at both.
func TestAListingThatIsClosedBecauseItsContextEndedIsNotComplete(t *testing.T) {
	t.Parallel()
	var closed chan struct{}
	tries := 0
	h := newInformer(t, func(ctx context.Context, _ deltatype.InformOptions) <-chan activities.Listed {
		out := make(chan activities.Listed)
		go func(try int) {
			// What is listed slowly is written in more than one page: the context can end at the first.
			for i := 0; i < 500 && ctx.Err() == nil; i++ {
				select {
				case out <- item(object(fmt.Sprint(try, i), "1")):
				case <-ctx.Done():
				}
			}
			<-ctx.Done()
			close(out)
			close(closed)
		}(tries)
		return out
	})
	for ; tries < 10; tries++ {
		closed = make(chan struct{})
		stopping, stop := context.WithCancel(t.Context())
		h.Stopping = stopping
		h.Informed = func(string, int) {
			stop()
			<-closed
		}
		_, err := h.pass()
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, h.cursor().Unix())
	}
}

func TestAPassLeavesUnchangedObjectsUnlessItProcessesExisting(t *testing.T) {
	t.Parallel()
	h := newInformer(t, lists(item(object("same", "1")), item(object("changed", "2")), item(object("gone", "2"))))
	for _, id := range []string{"same", "changed", "gone"} {
		h.inform(object(id, "1"))
		h.set(h.ref(id), "state = 'synced', synced_generation = 1, due_at = NULL")
	}
	h.set(h.ref("gone"), "state = 'deleted'")
	gone := h.row(h.ref("gone"))

	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: 3, Scheduled: 1}, progress)
	require.Equal(t, deltatype.ResourceStateSynced, h.row(h.ref("same")).State)
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(h.ref("changed")).State)
	listed := h.row(h.ref("gone"))
	gone.ListedAt = listed.ListedAt
	require.NotNil(t, listed.ListedAt)
	require.Equal(t, gone, listed, "what Work found to be gone is not revived by a listing that lags behind")

	progress, err = h.pass(func(in *activities.InformInput) { in.ProcessExisting = true })
	require.NoError(t, err)
	require.Equal(t, activities.InformProgress{Listed: 3, Scheduled: 1}, progress)
	require.Equal(t, deltatype.ResourceStateScheduled, h.row(h.ref("same")).State)
	require.EqualValues(t, 2, h.row(h.ref("changed")).Generation, "it is scheduled already")
	require.Equal(t, gone, h.row(h.ref("gone")))
}

func TestAPassOfAKindWithoutASettingsRowInforms(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.handler.inform = lists(item(object("a", "1")))
	progress, err := h.pass()
	require.NoError(t, err)
	require.Equal(t, 1, progress.Scheduled)
}

func TestTheTimeoutOfAPassIsTheControllersOrTheClients(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ controller, client, want time.Duration }{
		"controller": {5 * time.Minute, time.Minute, 5 * time.Minute},
		"client":     {0, 2 * time.Minute, 2 * time.Minute},
		"none":       {-1, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var deadline, called time.Time
			var bounded bool
			h := newInformer(t, func(ctx context.Context, o deltatype.InformOptions) <-chan activities.Listed {
				deadline, bounded = ctx.Deadline()
				called = time.Now()
				return lists()(ctx, o)
			})
			h.handler.passTimeout, h.InformTimeout = c.controller, c.client
			began := time.Now()
			_, err := h.pass()
			require.NoError(t, err)
			require.Equal(t, c.want > 0, bounded)
			if bounded {
				require.WithinRange(t, deadline.Add(-c.want), began, called, "the timeout runs from when the informer is called")
			}
		})
	}
}
