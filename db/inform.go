package db

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// InformOptions say how a set of objects is informed.
type InformOptions struct {
	// DefaultMaxAttempts is given to new rows whose object does not say.
	DefaultMaxAttempts int16
	// Revive schedules resources that are degraded, deleted or unknown, even if their object did not change.
	Revive bool
	// ProcessExisting schedules resources whose object did not change.
	ProcessExisting bool
	// Notify wakes the dispatchers of each kind that has something to dispatch, when the transaction commits.
	Notify bool
}

// ErrInformContended is returned when other transactions kept changing the same rows.
var ErrInformContended = errors.New("rows kept changing under concurrent informs")

// maxInformRounds bounds how often a set is asked for again. Each round settles every row that was not changed by
// another transaction in that very moment.
const maxInformRounds = 10

type informKey struct{ kind, objectID string }

// Inform writes a set of objects: one statement, one round trip, at most one write a row. Where an object is given
// twice the last one counts, and both get its result. Results are in the order of params.
func Inform(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	latest := make(map[informKey]*deltatype.ObjectInformParams, len(params))
	for i := range params {
		latest[informKey{params[i].Kind, params[i].ResourceID}] = &params[i]
	}
	open := make([]*deltatype.ObjectInformParams, 0, len(latest))
	for _, p := range latest {
		open = append(open, p)
	}
	// One order for all writers, so that two sets that overlap wait for each other instead of deadlocking.
	slices.SortFunc(open, func(a, b *deltatype.ObjectInformParams) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ResourceID, b.ResourceID))
	})

	found := make(map[informKey]*deltatype.ObjectInformResult, len(open))
	for round := 0; len(open) > 0; round++ {
		if round == maxInformRounds {
			return nil, fmt.Errorf("%w: %s/%s and %d more", ErrInformContended, open[0].Kind, open[0].ResourceID, len(open)-1)
		}
		rows, err := New().InformResources(ctx, conn, informParams(open, options))
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			row, err := r.resource().Row()
			if err != nil {
				return nil, err
			}
			key := informKey{r.Kind, r.ObjectID}
			if sent := latest[key]; bytes.Equal(sent.Hash, r.Hash) {
				row.EncodedObject = sent.EncodedObject
			}
			found[key] = &deltatype.ObjectInformResult{Resource: row, AlreadyExists: r.Existed, Scheduled: r.Written}
		}
		open = slices.DeleteFunc(open, func(p *deltatype.ObjectInformParams) bool {
			return found[informKey{p.Kind, p.ResourceID}] != nil
		})
	}

	results := make([]*deltatype.ObjectInformResult, len(params))
	for i, p := range params {
		results[i] = found[informKey{p.Kind, p.ResourceID}]
	}
	return results, nil
}

// InformRetrying is Inform outside a transaction: a deadlock or a serialization failure, which leave nothing behind, is
// tried again.
func InformRetrying(ctx context.Context, conn DBTX, params []deltatype.ObjectInformParams, options InformOptions) ([]*deltatype.ObjectInformResult, error) {
	for try := 1; ; try++ {
		results, err := Inform(ctx, conn, params, options)
		if err == nil || try == maxInformRounds || !isRetryable(err) {
			return results, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(try) * 10 * time.Millisecond):
		}
	}
}

func isRetryable(err error) bool {
	const serializationFailure, deadlockDetected = "40001", "40P01"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == serializationFailure || pg.Code == deadlockDetected)
}

func informParams(set []*deltatype.ObjectInformParams, options InformOptions) InformResourcesParams {
	n := len(set)
	p := InformResourcesParams{
		Kinds:              make([]string, n),
		ObjectIds:          make([]string, n),
		Objects:            make([][]byte, n),
		Hashes:             make([][]byte, n),
		Namespaces:         make([]string, n),
		Metadatas:          make([]string, n),
		Tags:               make([]string, n),
		MaxAttempts:        make([]int16, n),
		ExternalCreatedAts: make([]time.Time, n),
		DefaultMaxAttempts: options.DefaultMaxAttempts,
		Revive:             options.Revive,
		ProcessExisting:    options.ProcessExisting,
		Notify:             options.Notify,
	}
	for i, o := range set {
		p.Kinds[i] = o.Kind
		p.ObjectIds[i] = o.ResourceID
		p.Objects[i] = o.EncodedObject
		p.Hashes[i] = o.Hash
		p.Namespaces[i] = o.Namespace
		p.Metadatas[i] = string(o.Metadata)
		p.MaxAttempts[i] = o.MaxAttempts
		if o.Tags != nil {
			p.Tags[i] = arrayLiteral(o.Tags)
		}
		if o.CreatedAt != nil {
			p.ExternalCreatedAts[i] = *o.CreatedAt
		}
	}
	return p
}

// arrayLiteral writes a Postgres text array. A set of arrays cannot be handed over as one array of arrays, because
// Postgres wants those to be of one length.
func arrayLiteral(values []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(escape.Replace(v))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
