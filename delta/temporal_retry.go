package delta

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/chariot-giving/delta/internal/backoff"
)

// patientTries is how often a call to Temporal is tried that gets no answer within the SDK's 10 s, because a server starts
// or is busy.
const patientTries = 3

// callOnce is for calls whose callers need an answer at once.
func callOnce(_ context.Context, call func() error) error { return call() }

// retryUnavailable repeats a call to Temporal until ctx ends, while the server is unavailable: a frontend that is being
// replaced, perhaps behind a load balancer, cuts connections for a moment.
func retryUnavailable(ctx context.Context, call func() error) error {
	isUnavailable := func(err error) bool { return errors.As(err, new(*serviceerror.Unavailable)) }
	return backoff.Retry(ctx, backoff.New(100*time.Millisecond, time.Second), isUnavailable, call)
}

// notReadyPatience is how long a call is repeated while the workflow that must answer it cannot. The tries without an answer take as long.
const notReadyPatience = patientTries * 10 * time.Second

// retryUnanswered repeats a call to Temporal that gets no answer, while ctx goes on. A write whose answer was lost is found
// when it is repeated. Describing a schedule needs it most: the server asks one of its own workers, and if that was just
// replaced, the server waits for the old one for as long as the SDK waits for the server. If such a worker has died, the
// server refuses at once to ask, until another one has done the task that it had.
func retryUnanswered(ctx context.Context, call func() error) error {
	pauses, until := backoff.New(100*time.Millisecond, time.Second), time.Now().Add(notReadyPatience)
	for tries := 1; ; {
		err := call()
		isUnanswered := errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*serviceerror.DeadlineExceeded))
		isNotReady := errors.As(err, new(*serviceerror.WorkflowNotReady))
		switch {
		case ctx.Err() != nil, isUnanswered && tries == patientTries, isNotReady && time.Now().After(until), !isUnanswered && !isNotReady:
			return err
		case isUnanswered:
			tries++
		case backoff.Pause(ctx, pauses.Delay()) != nil:
			return err
		}
	}
}

// retryUnansweredRead is retryUnanswered for a call with a result.
func retryUnansweredRead[T any](ctx context.Context, call func() (T, error)) (found T, err error) {
	err = retryUnanswered(ctx, func() (err error) {
		found, err = call()
		return err
	})
	return found, err
}
