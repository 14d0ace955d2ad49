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

// Informed has the properties of a resource, beside its object, that [RequireInformed] expects. A zero field expects nothing.
type Informed struct {
	// AnyContent expects the object's kind and id only, and any content.
	AnyContent bool
	// Namespace is the resource's namespace.
	Namespace string
	// State is the resource's state, such as [deltatype.ResourceStateScheduled].
	State deltatype.ResourceState
	// Generation is 1 after the first inform, and more after changes.
	Generation int64
	// Priority is from 1 to 5.
	Priority int
	// MaxAttempts is the number of attempts before the resource degrades.
	MaxAttempts int
	// Tags are all tags of the resource, in order. An empty slice that is not nil expects none.
	Tags []string
	// Metadata is a JSON object with the same members and values.
	Metadata []byte
}

// RequireInformed fails the test unless the object was informed: its resource must be in the database, with the same content by Delta's comparison, and
// with the properties in want, which may be nil. It returns the resource for further assertions.
//
//	deltatest.RequireInformed(ctx, t, tx, order{Number: "17"}, &deltatest.Informed{Namespace: "eu"})
//
// conn is a pool, a connection or a transaction: an uncommitted transaction shows what InformTx has informed in it. No client has to run.
func RequireInformed(ctx context.Context, tb testing.TB, conn DB, object delta.Object, want *Informed) *deltatype.ResourceRow {
	tb.Helper()
	row, problem := findInformed(ctx, conn, object, want)
	if problem != nil {
		tb.Fatalf("deltatest: %v", problem)
	}
	return row
}

// RequireNotInformed fails the test if the object's resource is in the database, in any state and with any content. conn is the same as for [RequireInformed].
func RequireNotInformed(ctx context.Context, tb testing.TB, conn DB, object delta.Object) {
	tb.Helper()
	params, row, err := readInformed(ctx, conn, object)
	switch {
	case err != nil:
		tb.Fatalf("deltatest: %v", err)
	case row != nil:
		content := string(row.EncodedObject)
		if deltatype.IsEncoded(row.EncodedObject) {
			content = "its object is encoded (Config.ObjectCodec)"
		}
		tb.Fatalf("deltatest: %s/%s was informed unexpectedly: it is %s, generation %d, in namespace %q, since %s: %s", params.Kind, params.ResourceID,
			row.State, row.Generation, row.Namespace, row.CreatedAt.Format("2006-01-02 15:04:05.000 MST"), content)
	}
}

// readInformed reads the resource of an object, or returns nil if there is none.
func readInformed(ctx context.Context, conn DB, object delta.Object) (params deltatype.ObjectInformParams, row *deltatype.ResourceRow, err error) {
	if conn == nil {
		return params, nil, errNilDB
	}
	if params, err = kit.Encode(object); err != nil {
		return params, nil, fmt.Errorf("the expected object cannot be informed: %w", err)
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
	differences, err := want.findDifferences(params, row)
	if err != nil {
		return nil, err
	}
	if len(differences) > 0 {
		return nil, fmt.Errorf("%s/%s was informed, but not as expected:\n\t%s", params.Kind, params.ResourceID, strings.Join(differences, "\n\t"))
	}
	return row, nil
}

// maxDescribed is how many other resources of the kind a failure names.
const maxDescribed = 10

// describeOthers lists other resources of the kind, because they often show the mistake.
func describeOthers(ctx context.Context, conn DB, kind string) string {
	rows, err := db.New().ListResources(ctx, conn, db.ListResourcesParams{
		Kinds: []string{kind}, ObjectIds: []string{}, Namespaces: []string{}, Shards: []string{}, States: []string{}, Tags: []string{},
		Labels: []byte("{}"), Batch: maxDescribed + 1,
	})
	switch {
	case err != nil:
		return fmt.Sprintf("; reading what else of its kind was: %v", err)
	case len(rows) == 0:
		return ", nor was anything else of its kind"
	}
	var others []string
	for i, row := range rows {
		if i == maxDescribed {
			others = append(others, "…")
			break
		}
		others = append(others, fmt.Sprintf("%q (%s)", row.ObjectID, row.State))
	}
	return "; of its kind there are " + strings.Join(others, ", ")
}

// findDifferences describes the differences between a resource and the expected one.
func (w *Informed) findDifferences(params deltatype.ObjectInformParams, row *deltatype.ResourceRow) (differences []string, err error) {
	differ := func(field string, isDifferent bool, got, want any) {
		if isDifferent {
			differences = append(differences, fmt.Sprintf("%s is %v, expected %v", field, got, want))
		}
	}
	if !w.AnyContent && deltatype.IsEncoded(row.EncodedObject) {
		return nil, fmt.Errorf("the object of %s/%s is encoded (Config.ObjectCodec), so its content cannot be compared: set AnyContent, and compare what the client reads",
			row.ObjectKind, row.ObjectID)
	}
	differ("the object", !w.AnyContent && !slices.Equal(row.Hash, params.Hash), string(row.EncodedObject), string(params.EncodedObject))
	differ("the namespace", w.Namespace != "" && w.Namespace != row.Namespace, quote(row.Namespace), quote(w.Namespace))
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

func quote(s string) string { return fmt.Sprintf("%q", s) }

var errNilDB = errors.New("conn is nil: give a pool, a connection or a transaction")
