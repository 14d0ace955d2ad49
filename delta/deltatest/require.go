package deltatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/db"
	"github.com/chariot-giving/delta/delta"
	"github.com/chariot-giving/delta/delta/deltatype"
	"github.com/chariot-giving/delta/delta/internal/kit"
)

// Informed is what [RequireInformed] expects of a resource beside its object. A field that is zero expects nothing.
type Informed struct {
	// AnyContent expects the object's kind and id only: the content may be another one.
	AnyContent bool
	// Namespace is where the resource is.
	Namespace string
	// State is the one that it is in, such as [deltatype.ResourceStateScheduled].
	State deltatype.ResourceState
	// Generation is 1 after the first inform, and more after changes.
	Generation int64
	// Priority is from 1 to 5.
	Priority int
	// MaxAttempts is how often it is tried.
	MaxAttempts int
	// Tags are all that it has, in their order. One that is empty and not nil expects none.
	Tags []string
	// Metadata is a JSON object with the same members and values.
	Metadata []byte
}

// RequireInformed fails the test unless the object was informed: its resource is in the database, and has the object's content, as Delta compares it, and
// what want expects, which may be nil. It returns the resource, for what else there is to look at.
//
//	deltatest.RequireInformed(ctx, t, tx, order{Number: "17"}, &deltatest.Informed{Namespace: "eu"})
//
// conn is a pool, a connection or a transaction: that of an InformTx which was not committed yet shows what it has informed. Nothing has to run.
func RequireInformed(ctx context.Context, tb testing.TB, conn DB, object delta.Object, want *Informed) *deltatype.ResourceRow {
	tb.Helper()
	row, problem := findInformed(ctx, conn, object, want)
	if problem != nil {
		tb.Fatalf("deltatest: %v", problem)
	}
	return row
}

// RequireNotInformed fails the test if the object's resource is in the database, in any state and with any content. conn is as for [RequireInformed].
func RequireNotInformed(ctx context.Context, tb testing.TB, conn DB, object delta.Object) {
	tb.Helper()
	params, row, err := readInformed(ctx, conn, object)
	switch {
	case err != nil:
		tb.Fatalf("deltatest: %v", err)
	case row != nil:
		tb.Fatalf("deltatest: %s/%s was informed, and was not expected to be: it is %s, generation %d, in namespace %q, since %s: %s", params.Kind, params.ResourceID,
			row.State, row.Generation, row.Namespace, row.CreatedAt.Format("2006-01-02 15:04:05.000 MST"), row.EncodedObject)
	}
}

// readInformed reads the resource of an object; nil where there is none.
func readInformed(ctx context.Context, conn DB, object delta.Object) (params deltatype.ObjectInformParams, row *deltatype.ResourceRow, err error) {
	if conn == nil {
		return params, nil, errNilDB
	}
	if params, err = kit.Encode(object); err != nil {
		return params, nil, fmt.Errorf("the object that is expected cannot be informed: %w", err)
	}
	got, err := db.New().GetResource(ctx, conn, db.GetResourceParams{Kind: params.Kind, ObjectID: params.ResourceID})
	if errors.Is(err, pgx.ErrNoRows) {
		return params, nil, nil
	}
	if err != nil {
		return params, nil, fmt.Errorf("reading %s/%s: %w", params.Kind, params.ResourceID, kit.SchemaError(err))
	}
	row, err = got.Resource.Row()
	return params, row, err
}

func findInformed(ctx context.Context, conn DB, object delta.Object, want *Informed) (*deltatype.ResourceRow, error) {
	params, row, err := readInformed(ctx, conn, object)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, fmt.Errorf("%s/%s was not informed%s", params.Kind, params.ResourceID, describeOthers(ctx, conn, params.Kind))
	}
	if want == nil {
		want = &Informed{}
	}
	differences, err := want.compare(params, row)
	if err != nil {
		return nil, err
	}
	if len(differences) > 0 {
		return nil, fmt.Errorf("%s/%s was informed, but not as expected:\n\t%s", params.Kind, params.ResourceID, strings.Join(differences, "\n\t"))
	}
	return row, nil
}

// mostDescribed is how many other resources of a kind a failure names.
const mostDescribed = 10

// describeOthers says what else of a kind there is, which often shows the mistake.
func describeOthers(ctx context.Context, conn DB, kind string) string {
	rows, err := db.New().ListResources(ctx, conn, db.ListResourcesParams{
		Kinds: []string{kind}, ObjectIds: []string{}, Namespaces: []string{}, Shards: []string{}, States: []string{}, Tags: []string{},
		Labels: []byte("{}"), Batch: mostDescribed + 1,
	})
	switch {
	case err != nil:
		return fmt.Sprintf("; reading what else of its kind was: %v", err)
	case len(rows) == 0:
		return ", nor was anything else of its kind"
	}
	var others []string
	for i, row := range rows {
		if i == mostDescribed {
			others = append(others, "…")
			break
		}
		others = append(others, fmt.Sprintf("%q (%s)", row.ObjectID, row.State))
	}
	return "; of its kind there are " + strings.Join(others, ", ")
}

// compare says in what a resource differs from what is expected.
func (w *Informed) compare(params deltatype.ObjectInformParams, row *deltatype.ResourceRow) (differences []string, err error) {
	differ := func(field string, isDifferent bool, got, want any) {
		if isDifferent {
			differences = append(differences, fmt.Sprintf("%s is %v, expected %v", field, got, want))
		}
	}
	differ("the object", !w.AnyContent && !slices.Equal(row.Hash, params.Hash), string(row.EncodedObject), string(params.EncodedObject))
	differ("the namespace", w.Namespace != "" && w.Namespace != row.Namespace, quoted(row.Namespace), quoted(w.Namespace))
	differ("the state", w.State != "" && w.State != row.State, row.State, w.State)
	differ("the generation", w.Generation != 0 && w.Generation != row.Generation, row.Generation, w.Generation)
	differ("the priority", w.Priority != 0 && w.Priority != row.Priority, row.Priority, w.Priority)
	differ("MaxAttempts", w.MaxAttempts != 0 && w.MaxAttempts != row.MaxAttempts, row.MaxAttempts, w.MaxAttempts)
	differ("tags", w.Tags != nil && !slices.Equal(w.Tags, row.Tags), fmt.Sprintf("%q", row.Tags), fmt.Sprintf("%q", w.Tags))
	if w.Metadata == nil {
		return differences, nil
	}
	var got, want map[string]any
	if err := json.Unmarshal(w.Metadata, &want); err != nil || want == nil {
		return nil, kit.InputError("Metadata", string(w.Metadata), "must be a JSON object")
	}
	if err := json.Unmarshal(row.Metadata, &got); err != nil {
		return nil, fmt.Errorf("the stored metadata: %w", err)
	}
	differ("the metadata", !reflect.DeepEqual(got, want), string(row.Metadata), string(w.Metadata))
	return differences, nil
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }

var errNilDB = errors.New("conn is nil: give a pool, a connection or a transaction")
