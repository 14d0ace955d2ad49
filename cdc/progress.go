package cdc

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// progress is how far a backfill has come: what its token holds.
type progress struct {
	Version int      `json:"version"`
	Schema  string   `json:"schema"`
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
	// Key is that of the last row that was read, nil before the first.
	Key []string `json:"key,omitempty"`
	// Exhausted tells that there are no rows behind Key.
	Exhausted bool `json:"exhausted,omitempty"`
	// Again are the keys of rows to be read once more, wherever they are.
	Reread     map[string][]string `json:"-"`
	RereadList [][]string          `json:"again,omitempty"`
	Done       bool                `json:"done,omitempty"`
}

// String is the token. The same progress makes the same token.
func (p *progress) String() string {
	c := *p
	c.Version, c.RereadList = 1, nil
	for _, key := range c.Reread {
		c.RereadList = append(c.RereadList, encodeKey(key))
	}
	c.Key = encodeKey(c.Key)
	slices.SortFunc(c.RereadList, slices.Compare[[]string])
	text, err := json.Marshal(c)
	if err != nil {
		return "" // texts, numbers and lists of them can be encoded
	}
	return string(text)
}

// parse reads a token, which must be one of a table.
func (p *progress) parse(token, schema, table string) error {
	var read progress
	if err := json.Unmarshal([]byte(token), &read); err != nil || read.Version != 1 || len(read.Columns) == 0 {
		return newInvalidError(FieldToken, token, "what Backfill.Token gave")
	}
	if read.Schema != schema || read.Table != table {
		return newInvalidError(FieldToken, token, "one of the table "+schema+"."+table)
	}
	read.Reread = map[string][]string{}
	for _, key := range append(read.RereadList, read.Key) {
		if key != nil && len(key) != len(read.Columns) {
			return newInvalidError(FieldToken, token, "what Backfill.Token gave: a key has a value for each column")
		}
		if !decodeKey(key) {
			return newInvalidError(FieldToken, token, "what Backfill.Token gave: a value that is not UTF-8 is in hexadecimal digits")
		}
	}
	for _, key := range read.RereadList {
		read.Reread[joinKey(key)] = key
	}
	*p = read
	return nil
}

// bytesMark is before the hexadecimal digits of a value that is not UTF-8, which JSON cannot hold. No text of Postgres has this character.
const hexPrefix = "\x00"

// encodeKey is a key as a token has it.
func encodeKey(key []string) []string {
	if !slices.ContainsFunc(key, func(v string) bool { return !utf8.ValidString(v) }) {
		return key
	}
	key = slices.Clone(key)
	for i, v := range key {
		if !utf8.ValidString(v) {
			key[i] = hexPrefix + hex.EncodeToString([]byte(v))
		}
	}
	return key
}

// decodeKey takes back what writeKey has done. It reports whether that was possible.
func decodeKey(key []string) bool {
	for i, v := range key {
		digits, marked := strings.CutPrefix(v, hexPrefix)
		if !marked {
			continue
		}
		bytes, err := hex.DecodeString(digits)
		if err != nil {
			return false
		}
		key[i] = string(bytes)
	}
	return true
}

// joinKey makes one text of a key, different for different keys.
func joinKey(key []string) string {
	if len(key) == 1 {
		return key[0]
	}
	var b strings.Builder
	for _, text := range key {
		b.WriteString(strconv.Itoa(len(text)))
		b.WriteByte(':')
		b.WriteString(text)
	}
	return b.String()
}

// keyReader takes keys from rows. It belongs to one goroutine.
type keyReader struct {
	columns  []string
	relation *Relation // the one that places are of
	indexes  []int
}

// readKey is the key of a row; ok is false where the table has no such columns any more. Values that an update has left alone are
// in before.
func (k *keyReader) readKey(relation *Relation, row, before []Value) (key []string, ok bool) {
	if k.relation != relation {
		k.relation, k.indexes = relation, nil
		for _, c := range k.columns {
			k.indexes = append(k.indexes, relation.Index(c))
		}
	}
	key = make([]string, len(k.indexes))
	for i, place := range k.indexes {
		if place < 0 || place >= len(row) {
			return nil, false
		}
		v := row[place]
		if v.State == Unchanged && before != nil {
			v = before[place]
		}
		if v.State != Present {
			return nil, false
		}
		key[i] = v.Text
	}
	return key, true
}
