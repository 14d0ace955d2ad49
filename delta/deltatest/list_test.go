package deltatest_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// letter is an object with a creation time.
type letter struct {
	Number string
	At     time.Time
}

func (l letter) ID() string           { return l.Number }
func (l letter) Kind() string         { return "letter" }
func (l letter) CreatedAt() time.Time { return l.At }

type letters struct {
	delta.WorkerDefaults[letter]
	delta.ListerDefaults[letter]
	timeout time.Duration
	list    func(ctx context.Context, options *delta.InformOptions, yield func(letter, error) bool)
}

func (*letters) Work(context.Context, *delta.Resource[letter]) error { return nil }

func (c *letters) InformTimeout(*delta.InformArgs[letter]) time.Duration { return c.timeout }

func (c *letters) List(ctx context.Context, options *delta.InformOptions) iter.Seq2[letter, error] {
	return func(yield func(letter, error) bool) { c.list(ctx, options, yield) }
}

// mail lists letters on a channel.
type mailController struct {
	delta.WorkerDefaults[letter]
	delta.InformerDefaults[letter]
	inform func(ctx context.Context, options *delta.InformOptions, out chan<- letter) error
}

func (*mailController) Work(context.Context, *delta.Resource[letter]) error { return nil }

func (c *mailController) Inform(ctx context.Context, options *delta.InformOptions) (<-chan letter, error) {
	out := make(chan letter)
	go func() {
		defer close(out)
		if err := c.inform(ctx, options, out); err != nil {
			delta.FailInform(ctx, err)
		}
	}()
	return out, nil
}

func numbersOf(all []letter) string {
	var ids []string
	for _, l := range all {
		ids = append(ids, l.Number)
	}
	return strings.Join(ids, " ")
}

func TestAListingContinuesFromNext(t *testing.T) {
	t.Parallel()
	created := noon.Add(-time.Hour)
	controller := &letters{list: func(ctx context.Context, options *delta.InformOptions, yield func(letter, error) bool) {
		if options.Cursor == "page 2" {
			yield(letter{Number: "3"}, nil)
			return
		}
		delta.SetCursor(ctx, "page 1")
		_ = yield(letter{Number: "1", At: created}, nil) && yield(letter{Number: "bad\x00"}, nil) && yield(letter{Number: "2"}, nil)
		delta.SetCursor(ctx, "page 2")
	}}
	first, err := deltatest.List(t.Context(), controller, &deltatest.ListOpts{Now: noon})
	require.NoError(t, err)
	require.Equal(t, "1 2", numbersOf(first.Objects))
	require.Equal(t, created, first.Objects[0].At)
	require.Len(t, first.Refused, 1)
	require.Equal(t, "bad\x00", first.Refused[0].ObjectID)
	require.ErrorContains(t, first.Refused[0].Err, "must have no control characters")
	require.ErrorAs(t, first.Refused[0].Err, new(*delta.InputError))
	require.Equal(t, "page 2", first.Next.Cursor, "the last call counts")
	require.Equal(t, created.Add(-5*time.Minute), *first.Next.After, "the latest creation, less the overlap")

	second, err := deltatest.List(t.Context(), controller, &deltatest.ListOpts{Now: noon, Options: first.Next})
	require.NoError(t, err)
	require.Equal(t, "3", numbersOf(second.Objects))
	require.Equal(t, "page 2", second.Next.Cursor, "the cursor stays if none is set")
	require.Equal(t, noon.Add(-5*time.Minute), *second.Next.After, "without a creation time: the start of the pass")

	ahead := noon.Add(time.Minute)
	third, err := deltatest.List(t.Context(), controller, &deltatest.ListOpts{Now: noon.Add(-2 * time.Hour), Options: delta.InformOptions{After: &ahead, Cursor: "page 2"}})
	require.NoError(t, err)
	require.Equal(t, noon.Add(-2*time.Hour-5*time.Minute), *third.Next.After, "a cursor is never later than the pass")

	narrowed := delta.InformOptions{Labels: map[string]string{"team": "blue"}}
	fourth, err := deltatest.List(t.Context(), controller, &deltatest.ListOpts{Options: narrowed})
	require.NoError(t, err)
	require.Equal(t, narrowed, fourth.Next)
}

func TestAFailedListingReturnsItsError(t *testing.T) {
	t.Parallel()
	before := delta.InformOptions{Cursor: "before"}
	lists := func(list func(ctx context.Context, yield func(letter, error) bool)) *letters {
		return &letters{timeout: patience, list: func(ctx context.Context, _ *delta.InformOptions, yield func(letter, error) bool) {
			delta.SetCursor(ctx, "after")
			if yield(letter{Number: "1"}, nil) {
				list(ctx, yield)
			}
		}}
	}
	slow := lists(func(ctx context.Context, _ func(letter, error) bool) { <-ctx.Done() })
	slow.timeout = time.Second
	for name, c := range map[string]struct {
		controller delta.Controller[letter]
		says       string
		is         error
	}{
		"an error":  {controller: lists(func(_ context.Context, yield func(letter, error) bool) { yield(letter{}, errBoom) }), says: "deltatest: list: informing kind letter (1 listed so far): boom", is: errBoom},
		"a panic":   {controller: lists(func(context.Context, func(letter, error) bool) { panic("ouch") }), says: "panic: ouch"},
		"a timeout": {controller: slow, says: "the pass timed out after 1s: context deadline exceeded"},
		"a cursor":  {controller: lists(func(ctx context.Context, _ func(letter, error) bool) { delta.SetCursor(ctx, "\x00") }), says: "delta.SetCursor: cursor"},
		"FailInform": {controller: &mailController{inform: func(ctx context.Context, _ *delta.InformOptions, out chan<- letter) error {
			delta.SetCursor(ctx, "after")
			out <- letter{Number: "1"}
			return errBoom
		}}, says: "informing kind letter (1 listed so far): boom", is: errBoom},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listing, err := deltatest.List(t.Context(), c.controller, &deltatest.ListOpts{Options: before})
			require.ErrorContains(t, err, c.says)
			require.True(t, c.is == nil || errors.Is(err, c.is))
			require.Equal(t, "1", numbersOf(listing.Objects))
			require.Equal(t, before, listing.Next, "the cursor stays")
		})
	}
	_, err := deltatest.List(t.Context(), newReturning(nil), nil)
	require.ErrorContains(t, err, "informing kind parcel: its controller embeds delta.NoInformer, so it lists nothing")
	for says, opts := range map[string]deltatest.ListOpts{
		"Limit -1: must be positive":                                    {Options: delta.InformOptions{Limit: -1}},
		`Options.Cursor "x": must not be set together with FullListing`: {Options: delta.InformOptions{Cursor: "x"}, FullListing: true},
		"must not be set together with FullListing, which lists":        {Options: delta.InformOptions{After: &noon}, FullListing: true},
	} {
		listing, err := deltatest.List(t.Context(), &mailController{}, &opts)
		require.ErrorContains(t, err, says)
		require.ErrorAs(t, err, new(*delta.InputError))
		require.Nil(t, listing)
	}
}

func TestAChannelIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	var timeout *delta.InformArgs[letter]
	controller := &mailWithTimeout{mailController: mailController{inform: func(_ context.Context, options *delta.InformOptions, out chan<- letter) error {
		for range options.Limit {
			out <- letter{Number: "1"}
		}
		return nil
	}}, asked: func(args *delta.InformArgs[letter]) { timeout = args }}
	listing, err := deltatest.List(t.Context(), controller, &deltatest.ListOpts{Options: delta.InformOptions{Limit: 2}, ProcessExisting: true, RunForeground: true, FullListing: true})
	require.NoError(t, err)
	require.Equal(t, "1 1", numbersOf(listing.Objects))
	epoch := time.Unix(0, 0).UTC()
	require.Equal(t, &delta.InformArgs[letter]{
		ResourceKind: "letter", FullListing: true, ProcessExisting: true, RunForeground: true, Options: &delta.InformOptions{After: &epoch, Limit: 2},
	}, timeout)
}

type mailWithTimeout struct {
	mailController
	asked func(*delta.InformArgs[letter])
}

func (c *mailWithTimeout) InformTimeout(args *delta.InformArgs[letter]) time.Duration {
	c.asked(args)
	return -1
}
