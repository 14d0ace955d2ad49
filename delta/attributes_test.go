package delta_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/chariot-giving/delta/delta/deltatest"
)

// Where search attributes may not be created, a warning says so, and all else works.
func TestWithoutSearchAttributesAllElseWorks(t *testing.T) {
	t.Parallel()
	h := &harness{t: t, Env: deltatest.New(t, deltatest.WithTemporalOptions(func(o *client.Options) {
		o.ConnectionOptions.DialOptions = append(o.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if strings.Contains(method, "OperatorService") {
					return status.Error(codes.PermissionDenied, "operators only")
				}
				return invoke(ctx, method, in, out, cc, opts...)
			}))
	}))}
	var logs logBuffer
	config := h.config(with(&controller[account]{}))
	config.Logger = logs.logger()
	c := h.start(config)
	require.Contains(t, logs.String(), "no search attributes")
	require.Contains(t, logs.String(), "operators only")
	require.Contains(t, logs.String(), "temporal operator search-attribute create")
	row, err := c.Sync(t.Context(), account{Name: "ann"}, nil)
	require.NoError(t, err)
	described, err := h.Temporal.DescribeWorkflow(t.Context(), row.WorkflowID, "")
	require.NoError(t, err)
	require.NotContains(t, described.RawResponse.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields(), "DeltaState")
}
