package db

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/chariot-giving/delta/delta/deltatype"
)

func priorityOf(o *deltatype.ObjectInformParams, options InformOptions) int16 {
	const middle = 3
	return cmp.Or(o.Priority, options.DefaultPriority, middle)
}

func informParam(o *deltatype.ObjectInformParams, options InformOptions) InformResourceParams {
	p := InformResourceParams{
		Kind:               o.Kind,
		ObjectID:           o.ResourceID,
		Object:             o.EncodedObject,
		Hash:               o.Hash,
		Metadata:           o.Metadata,
		Tags:               o.Tags,
		ExternalCreatedAt:  o.CreatedAt,
		Revision:           o.Revision,
		ObjectVersion:      o.ObjectVersion,
		Shard:              o.Shard,
		LimitKey:           o.LimitKey,
		Carrier:            o.Carrier,
		Parents:            formatRefs(o.Parents),
		Forced:             o.Force,
		SyncMetadata:       o.SyncMetadata,
		ExpectedHash:       o.ExpectedHash,
		Priority:           priorityOf(o, options),
		DefaultMaxAttempts: options.DefaultMaxAttempts,
		Revive:             options.Revive,
		ProcessExisting:    options.ProcessExisting,
		Notify:             options.Notify,
		MoveNamespace:      o.MoveNamespace,
	}
	if o.Namespace != "" {
		p.Namespace = &o.Namespace
	}
	if o.MaxAttempts != 0 {
		p.MaxAttempts = &o.MaxAttempts
	}
	return p
}

// informParams returns the arrays of a set. A column that no object gives stays nil: Postgres fills it with nulls.
func informParams(set []*deltatype.ObjectInformParams, options InformOptions) InformResourcesParams {
	n := len(set)
	p := InformResourcesParams{
		Kinds:              make([]string, n),
		ObjectIds:          make([]string, n),
		Objects:            make([][]byte, n),
		Hashes:             make([][]byte, n),
		Priorities:         make([]int16, n),
		DefaultMaxAttempts: options.DefaultMaxAttempts,
		Revive:             options.Revive,
		ProcessExisting:    options.ProcessExisting,
		Notify:             options.Notify,
	}
	if options.LockTimeout > 0 {
		p.LockTimeout = options.LockTimeout.String()
	}
	for i, o := range set {
		p.Kinds[i] = o.Kind
		p.ObjectIds[i] = o.ResourceID
		p.Objects[i] = o.EncodedObject
		p.Hashes[i] = o.Hash
		p.Priorities[i] = priorityOf(o, options)
		setColumn(&p.Namespaces, n, i, o.Namespace, o.Namespace != "")
		setColumn(&p.MoveNamespaces, n, i, true, o.MoveNamespace)
		setColumn(&p.Metadatas, n, i, string(o.Metadata), len(o.Metadata) > 0)
		setColumn(&p.MaxAttempts, n, i, o.MaxAttempts, o.MaxAttempts != 0)
		if o.Tags != nil {
			setColumn(&p.Tags, n, i, arrayLiteral(o.Tags), true)
		}
		if o.CreatedAt != nil {
			setColumn(&p.ExternalCreatedAts, n, i, *o.CreatedAt, true)
		}
		setColumn(&p.Revisions, n, i, revisionText(o.Revision), o.Revision != nil)
		setColumn(&p.ObjectVersions, n, i, o.ObjectVersion, o.ObjectVersion != 0)
		setColumn(&p.Shards, n, i, o.Shard, o.Shard != "")
		setColumn(&p.LimitKeys, n, i, o.LimitKey, o.LimitKey != "")
		setColumn(&p.Carriers, n, i, o.Carrier, o.Carrier != "")
		if o.Parents != nil {
			setColumn(&p.Parents, n, i, arrayLiteral(formatRefs(o.Parents)), true)
		}
		setColumn(&p.ExpectedHashes, n, i, o.ExpectedHash, o.ExpectedHash != nil)
		setColumn(&p.Forced, n, i, true, o.Force)
		setColumn(&p.SyncMetadata, n, i, true, o.SyncMetadata)
	}
	return p
}

// setColumn sets a given value in a column of n values, which it makes for the first.
func setColumn[T any](column *[]T, n, i int, value T, given bool) {
	if !given {
		return
	}
	if *column == nil {
		*column = make([]T, n)
	}
	(*column)[i] = value
}

func keptParams(p InformResourcesParams) KeptResourcesParams {
	return KeptResourcesParams{
		Kinds:           p.Kinds,
		ObjectIds:       p.ObjectIds,
		Hashes:          p.Hashes,
		Namespaces:      p.Namespaces,
		Metadatas:       p.Metadatas,
		Tags:            p.Tags,
		MaxAttempts:     p.MaxAttempts,
		MoveNamespaces:  p.MoveNamespaces,
		Revisions:       p.Revisions,
		Forced:          p.Forced,
		SyncMetadata:    p.SyncMetadata,
		ExpectedHashes:  p.ExpectedHashes,
		Revive:          p.Revive,
		ProcessExisting: p.ProcessExisting,
	}
}

// revisionText returns a revision for a column of texts, where the empty text means none.
func revisionText(r *int64) string {
	if r == nil {
		return ""
	}
	return strconv.FormatInt(*r, 10)
}

// arrayLiteral writes a Postgres text array, because an array of arrays requires all of them to have the same length.
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
