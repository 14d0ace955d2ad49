package delta

import (
	"context"
	"errors"

	"go.temporal.io/api/serviceerror"
)

// patientTries is how often a call to Temporal is made where it does not answer in the SDK's 10 s, as one that is starting or busy.
const patientTries = 3

// retryUnanswered repeats a call to Temporal while it does not answer, and ctx goes on. A write whose answer was lost is found when it is
// repeated. The description of a schedule needs it most: the server asks a worker of its own, and where that was just replaced, it waits for
// the old one for as long as the SDK waits for the server.
func retryUnanswered(ctx context.Context, call func() error) (err error) {
	for range patientTries {
		err = call()
		isUnanswered := errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*serviceerror.DeadlineExceeded))
		if !isUnanswered || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// retryUnansweredRead is patiently, for a call that brings something.
func retryUnansweredRead[T any](ctx context.Context, call func() (T, error)) (found T, err error) {
	err = retryUnanswered(ctx, func() (err error) {
		found, err = call()
		return err
	})
	return found, err
}
