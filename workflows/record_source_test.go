package workflows_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/chariot-giving/delta/delta"
)

// fed is an object of a kind that a source feeds.
type fed struct{ account }

func (fed) Kind() string { return "fed" }

type fedController struct {
	delta.WorkerDefaults[fed]
	delta.NoInformer[fed]
}

func (fedController) Work(context.Context, *delta.Resource[fed]) error { return nil }

// source fails once, and then goes on.
type source struct{ runs chan struct{} }

func (source) Name() string { return "test" }

func (s source) Run(ctx context.Context, _ *delta.Feed) error {
	s.runs <- struct{}{}
	if len(s.runs) == 1 {
		return errors.New("not yet")
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestRecordSource(t *testing.T) {
	if !*record {
		t.Skip("with -record only")
	}
	r := newRecorder(t, delta.NamespaceConfig{})
	controllers, s := delta.NewControllers(), source{make(chan struct{}, 10)}
	delta.AddController(controllers, fedController{})
	delta.AddSource[fed](controllers, s)
	c, err := delta.NewClient(r.Pool, &delta.Config{Controllers: controllers, Temporal: r.Temporal, WorkflowIDPrefix: r.Prefix, Logger: r.Logger})
	require.NoError(t, err)
	r.client = c
	r.start()
	r.awaitThat("the source runs again", func() bool { return len(s.runs) == 2 })
	id := r.Prefix + "/source:fed/test"
	require.NoError(t, r.Temporal.CancelWorkflow(t.Context(), id, ""))
	r.saveAs(id, "source-failed-once-cancelled", enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED)
}
