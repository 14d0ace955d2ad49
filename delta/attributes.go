package delta

import (
	"cmp"
	"context"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/chariot-giving/delta/workflows"
)

const (
	attributesPoll  = 100 * time.Millisecond
	attributesTries = 50
)

// ensureAttributes creates Delta's search attributes in the Temporal namespace, and reports whether they exist. Without
// them only the filters of the UI do not work.
func (e *engine) ensureAttributes(ctx context.Context) bool {
	namespace := e.temporalNamespace()
	left, err := e.missingAttributes(ctx)
	if err == nil && len(left) > 0 {
		err = retryUnanswered(ctx, func() error {
			_, err := e.temporal.OperatorService().AddSearchAttributes(ctx,
				&operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: left})
			return err
		})
		for try := 0; err == nil && len(left) > 0 && try < attributesTries; try++ {
			time.Sleep(attributesPoll)
			left, err = e.missingAttributes(ctx)
		}
	}
	if err != nil || len(left) > 0 {
		e.client.config.Logger.Warn("the Temporal namespace has no search attributes of Delta's, and they cannot be created: "+
			"the UI cannot filter by kind, namespace and state. Create them with `temporal operator search-attribute create`, "+
			"as DeltaKind, DeltaNamespace and DeltaState, of type Keyword", "temporal_namespace", namespace, "error", err)
		return false
	}
	return true
}

// missingAttributes returns Delta's search attributes that the Temporal namespace lacks.
func (e *engine) missingAttributes(ctx context.Context) (map[string]enumspb.IndexedValueType, error) {
	var there *operatorservice.ListSearchAttributesResponse
	err := retryUnanswered(ctx, func() (err error) {
		there, err = e.temporal.OperatorService().ListSearchAttributes(ctx,
			&operatorservice.ListSearchAttributesRequest{Namespace: e.temporalNamespace()})
		return err
	})
	if err != nil {
		return nil, err
	}
	left := map[string]enumspb.IndexedValueType{}
	for _, name := range []string{workflows.KindAttribute.GetName(), workflows.NamespaceAttribute.GetName(), workflows.StateAttribute.GetName()} {
		if there.GetCustomAttributes()[name] != enumspb.INDEXED_VALUE_TYPE_KEYWORD {
			left[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
		}
	}
	return left, nil
}

// temporalNamespace returns the name of the Temporal namespace, which cannot be read from a client.
func (e *engine) temporalNamespace() string {
	if e.client.config.TemporalNamespace != "" || e.client.config.Temporal != nil {
		return cmp.Or(e.client.config.TemporalNamespace, client.DefaultNamespace)
	}
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return client.DefaultNamespace
	}
	return cmp.Or(options.Namespace, client.DefaultNamespace)
}
