package deltatest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatest"
)

// invoice is an object, and invoices is its controller.
type invoice struct{ Number string }

func (i invoice) ID() string   { return i.Number }
func (i invoice) Kind() string { return "invoice" }

type invoices struct {
	delta.WorkerDefaults[invoice]
	delta.ListerDefaults[invoice]
	upstream map[string]error // the upstream's answers
	numbers  []string         // the upstream's invoices
}

func (c *invoices) Work(_ context.Context, r *delta.Resource[invoice]) error {
	return c.upstream[r.Object.Number]
}

func (c *invoices) List(ctx context.Context, _ *delta.InformOptions) iter.Seq2[invoice, error] {
	return func(yield func(invoice, error) bool) {
		for _, number := range c.numbers {
			if !yield(invoice{Number: number}, nil) {
				return
			}
		}
		delta.SetCursor(ctx, "page 2")
	}
}

// A controller is tested without servers. The test decides the number and the time of the attempt.
func ExampleWork() {
	ctx := context.Background()
	controller := &invoices{upstream: map[string]error{
		"17": nil,
		"18": errors.New("503 Service Unavailable"),
		"19": delta.ResourceSnooze(30 * time.Second),
	}}
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, number := range []string{"17", "18", "19"} {
		for _, attempt := range []int{1, 10} { // MaxAttempts is 10
			outcome, err := deltatest.Work(ctx, controller, invoice{Number: number}, &deltatest.WorkOpts{Attempt: attempt, Now: noon})
			if err != nil {
				panic(err)
			}
			again := "not tried again"
			if !outcome.NextAttemptAt.IsZero() {
				again = "again after " + outcome.NextAttemptAt.Sub(noon).String()
			}
			fmt.Printf("%s, attempt %d: %s, %s\n", number, attempt, outcome.State, again)
		}
	}
	// Output:
	// 17, attempt 1: synced, not tried again
	// 17, attempt 10: synced, not tried again
	// 18, attempt 1: failed, again after 1s
	// 18, attempt 10: degraded, again after 1h0m0s
	// 19, attempt 1: scheduled, again after 30s
	// 19, attempt 10: scheduled, again after 30s
}

// A listing runs to its end. An invalid object stops neither the other objects nor the cursor.
func ExampleList() {
	controller := &invoices{numbers: []string{"17", "", "18"}}
	listing, err := deltatest.List(context.Background(), controller, nil)
	fmt.Println(listing.Objects, err)
	fmt.Println(listing.Refused[0].Err)
	fmt.Println(listing.Next.Cursor)
	// Output:
	// [{17} {18}] <nil>
	// kind invoice: object id "": must not be empty
	// page 2
}

// An informed object is in the database at once, and in its transaction before the commit. No client has to run.
func ExampleRequireInformed() {
	_ = func(t *testing.T) {
		env := deltatest.New(t)
		client, err := delta.NewClient(env.Pool, &delta.Config{})
		if err != nil {
			t.Fatal(err)
		}
		tx, err := env.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()

		// The program under test.
		if _, err := client.InformTx(t.Context(), tx, invoice{Number: "17"}, &delta.InformOpts{Namespace: "eu"}); err != nil {
			t.Fatal(err)
		}

		deltatest.RequireInformed(t.Context(), t, tx, invoice{Number: "17"}, &deltatest.Informed{Namespace: "eu"})
		deltatest.RequireNotInformed(t.Context(), t, tx, invoice{Number: "18"})
	}
}
