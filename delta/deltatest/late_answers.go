package deltatest

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// sdkTimeout is how long the SDK waits for the answer to most of its calls. The SDK has no setting for it.
	sdkTimeout = 10 * time.Second
	// callTimeout is how long Env.Temporal waits instead. It only ends a test that hangs.
	callTimeout = 2 * time.Minute
)

// waitForLateAnswers replaces the SDK's deadline of a call by callTimeout, because a busy machine may be slow. It keeps a deadline of the caller,
// which is shorter or longer than the SDK's, and the caller's cancellation.
func waitForLateAnswers(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	deadline, ok := ctx.Deadline()
	left := time.Until(deadline)
	// A query waits for a worker, and there may be none: with callTimeout the test would seem to hang.
	if !ok || left > sdkTimeout || left < sdkTimeout/2 || strings.HasSuffix(method, "/QueryWorkflow") {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()
	for {
		err := invoker(patient, method, req, reply, cc, opts...)
		// The server itself times out between its parts. Repeat reads only: a write may have happened.
		if status.Code(err) != codes.DeadlineExceeded || patient.Err() != nil || !isReadOnly(method) {
			return err
		}
	}
}

// isReadOnly reports whether a call to Temporal changes nothing.
func isReadOnly(method string) bool {
	name := path.Base(method)
	return strings.HasPrefix(name, "Describe") || strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Count")
}
