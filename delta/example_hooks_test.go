package delta_test

import (
	"context"
	"fmt"
	"time"

	"github.com/chariot-giving/delta/delta"
)

func withHooks(controllers *delta.Controllers) *delta.Config {
	return &delta.Config{
		Controllers: controllers,
		ErrorHandler: func(_ context.Context, f delta.Failure) {
			report(f.Err, f.Kind, f.Attempt, f.IsPanic, f.IsDegraded)
		},
		Middleware: []delta.Middleware{
			func(ctx context.Context, call *delta.Call, next func(context.Context) error) error {
				began := time.Now()
				err := next(ctx)
				delta.Logger(ctx).Debug("called", "operation", call.Operation, "took", time.Since(began), "error", err)
				return err
			},
		},
	}
}

func report(err error, details ...any) { fmt.Println(err, details) }

// A client that reports failures, and has code of its own around every call of a controller.
func Example_hooks() {
	config := withHooks(delta.NewControllers())
	fmt.Println(config.ErrorHandler != nil, len(config.Middleware))
	// Output: true 1
}
