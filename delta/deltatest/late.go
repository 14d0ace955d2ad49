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
	// sdkTimeout is how long the SDK waits for the answer to most of its calls. It cannot be set.
	sdkTimeout = 10 * time.Second
	// callTimeout is how long Env.Temporal waits instead. It only ends a test that hangs.
	callTimeout = 2 * time.Minute
)

// waitForLateAnswers gives a call as long as a busy machine may take to answer it. A deadline of the caller's own, which is shorter or
// longer than the SDK's, is kept, and its cancellation ends the call.
func waitForLateAnswers(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	deadline, ok := ctx.Deadline()
	left := time.Until(deadline)
	// A query waits for a worker, which need not be there: without an end it would hang.
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
		// The server has timeouts of its own between its parts. What only reads is asked again; a write may have been done.
		if status.Code(err) != codes.DeadlineExceeded || patient.Err() != nil || !onlyReads(method) {
			return err
		}
	}
}

// onlyReads reports whether a call of Temporal's changes nothing.
func onlyReads(method string) bool {
	name := path.Base(method)
	return strings.HasPrefix(name, "Describe") || strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Count")
}
