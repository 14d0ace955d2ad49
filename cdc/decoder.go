package cdc

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"
)

// The messages of pgoutput.
const (
	messageBegin        = 'B'
	messageCommit       = 'C'
	messageOrigin       = 'O'
	messageRelation     = 'R'
	messageType         = 'Y'
	messageInsert       = 'I'
	messageUpdate       = 'U'
	messageDelete       = 'D'
	messageTruncate     = 'T'
	messageLogical      = 'M'
	messageStreamStart  = 'S'
	messageStreamStop   = 'E'
	messageStreamCommit = 'c'
	messageStreamAbort  = 'A'
)

// builtinTypes holds the names of the types that every server has, except otherTypes.
var builtinTypes = pgtype.NewMap()

// otherTypes are types that a column can have and pgx does not know.
var otherTypes = map[uint32]string{
	22: "int2vector", 24: "regproc", 30: "oidvector", 775: "_macaddr8", 790: "money", 791: "_money", 1006: "_int2vector",
	1008: "_regproc", 1013: "_oidvector", 1266: "timetz", 1270: "_timetz", 1790: "refcursor", 2201: "_refcursor",
	2202: "regprocedure", 2203: "regoper", 2204: "regoperator", 2205: "regclass", 2206: "regtype", 2207: "_regprocedure",
	2208: "_regoper", 2209: "_regoperator", 2210: "_regclass", 2211: "_regtype", 2949: "_txid_snapshot", 2970: "txid_snapshot",
	3220: "pg_lsn", 3221: "_pg_lsn", 3615: "tsquery", 3642: "gtsvector", 3644: "_gtsvector", 3645: "_tsquery",
	3734: "regconfig", 3735: "_regconfig", 3769: "regdictionary", 3770: "_regdictionary", 4089: "regnamespace",
	4090: "_regnamespace", 4096: "regrole", 4097: "_regrole", 4191: "regcollation", 4192: "_regcollation", 5038: "pg_snapshot",
	5039: "_pg_snapshot", 6150: "_int4multirange", 6151: "_nummultirange", 6152: "_tsmultirange", 6153: "_tstzmultirange",
	6155: "_datemultirange", 6157: "_int8multirange",
}

// decoder decodes messages into changes. It must see all messages of one connection in the order in which transactions
// are delivered, because the server describes a table once, before its first change.
type decoder struct {
	relations map[uint32]*Relation
	types     map[uint32]string
	schemas   *schemaTracker // nil without Config.SchemaChanges
	// isRaw makes the decoder validate texts, because the server has not. skip decides whether to leave out a row that
	// cannot be decoded.
	isRaw bool
	skip  func(*UndecodableError) bool
}

func newDecoder() *decoder {
	return &decoder{relations: map[uint32]*Relation{}, types: map[uint32]string{}}
}

// decode appends the changes in a message: none for a description, and one for each table of a truncate. streamed
// reports whether the message carries its transaction.
func (d *decoder) decode(changes []*Change, data []byte, at LSN, xid uint32, streamed bool) ([]*Change, error) {
	w := &messageReader{rest: data}
	kind := w.readByte()
	if streamed {
		xid = w.readUint32()
	}
	change := &Change{LSN: at, XID: xid}
	switch kind {
	case messageRelation:
		d.decodeRelation(w)
		return changes, w.err
	case messageType:
		d.decodeType(w)
		return changes, w.err
	case messageInsert, messageUpdate, messageDelete:
		d.decodeRow(w, kind, change)
		if err := d.rowError(w, change); err != nil {
			return changes, d.skipError(err)
		}
		changes = d.appendSchemaChange(changes, change)
	case messageTruncate:
		return d.decodeTruncate(changes, w, change)
	case messageLogical:
		change.Kind = KindMessage
		flags := w.readByte()
		w.readLSN()
		change.Message = &Message{Transactional: flags&1 != 0, Prefix: w.readString()}
		change.Message.Content = append([]byte{}, w.takeBytes(int(w.readUint32()))...)
		if !change.Message.Transactional {
			change.XID = 0
		}
	default:
		w.fail("a message of the unknown kind %q", kind)
	}
	if w.err != nil {
		return changes, fmt.Errorf("message %q at %s: %w", kind, at, w.err)
	}
	return append(changes, change), nil
}

// rowError returns why a row cannot be decoded, nil if it can.
func (d *decoder) rowError(w *messageReader, change *Change) error {
	if w.err == nil {
		return d.checkUTF8(change)
	}
	table := ""
	if change.Relation != nil {
		table = change.Relation.Name()
	}
	return &UndecodableError{Table: table, LSN: change.LSN, XID: change.XID, Err: w.err}
}

func (d *decoder) decodeRow(w *messageReader, kind byte, change *Change) {
	change.Relation = d.lookupRelation(w)
	switch kind {
	case messageInsert:
		change.Kind = KindInsert
	case messageUpdate:
		change.Kind = KindUpdate
	case messageDelete:
		change.Kind = KindDelete
	}
	for len(w.rest) > 0 && w.err == nil {
		part := w.readByte()
		row := w.readRow()
		if w.err == nil && change.Relation != nil && len(row) != len(change.Relation.Columns) {
			w.fail("a row of %s has %d columns and not %d", change.Relation.Name(), len(row), len(change.Relation.Columns))
		}
		switch part {
		case 'N':
			change.New = row
		case 'O':
			change.Old = row
		case 'K':
			change.Key = row
		default:
			w.fail("a row of the unknown part %q", part)
		}
	}
	missing := change.New == nil
	if change.Kind == KindDelete {
		missing = change.Old == nil && change.Key == nil
	}
	if missing {
		w.fail("a row is missing")
	}
}

// appendSchemaChange appends a change of the table's definition, if first is the first change under a new definition.
func (d *decoder) appendSchemaChange(changes []*Change, first *Change) []*Change {
	if d.schemas == nil {
		return changes
	}
	if schema := d.schemas.noteRelation(first.Relation); schema != nil {
		changes = append(changes, &Change{Kind: KindSchema, Relation: first.Relation, LSN: first.LSN, XID: first.XID, Schema: schema})
	}
	return changes
}

func (d *decoder) decodeTruncate(changes []*Change, w *messageReader, change *Change) ([]*Change, error) {
	n, options := int(w.readUint32()), w.readByte()
	change.Kind, change.Truncate = KindTruncate, Truncate{Cascade: options&1 != 0, RestartIdentity: options&2 != 0}
	for i := 0; i < n && w.err == nil; i++ {
		one := *change
		if one.Relation = d.lookupRelation(w); w.err == nil {
			changes = append(d.appendSchemaChange(changes, &one), &one)
		}
	}
	return changes, w.err
}

func (d *decoder) lookupRelation(w *messageReader) *Relation {
	oid := w.readUint32()
	relation := d.relations[oid]
	if relation == nil {
		w.fail("table %d was never described", oid)
	}
	return relation
}

func (d *decoder) decodeRelation(w *messageReader) {
	r := &Relation{OID: w.readUint32(), Schema: w.readString(), Table: w.readString(), Identity: Identity(w.readByte())}
	if r.Schema == "" {
		r.Schema = "pg_catalog"
	}
	for n := int(w.readUint16()); n > 0 && w.err == nil; n-- {
		c := Column{Key: w.readByte()&1 != 0, Name: w.readString(), TypeOID: w.readUint32()}
		c.Modifier = int32(w.readUint32()) //nolint:gosec // signed on the server
		c.Type = d.types[c.TypeOID]
		if t, ok := builtinTypes.TypeForOID(c.TypeOID); ok && c.Type == "" {
			c.Type = t.Name
		} else if c.Type == "" {
			c.Type = otherTypes[c.TypeOID]
		}
		r.Columns = append(r.Columns, c)
	}
	if d.isRaw && !r.hasUTF8Names() {
		w.fail("the name of the table %q, or of a column of it, is not UTF-8", r.Name())
	}
	if w.err == nil {
		d.relations[r.OID] = r
	}
}

func (d *decoder) decodeType(w *messageReader) {
	oid, schema, name := w.readUint32(), w.readString(), w.readString()
	if schema != "" {
		name = schema + "." + name
	}
	if w.err == nil {
		d.types[oid] = name
	}
}
