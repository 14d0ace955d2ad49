package cdc

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// progress is the state of a backfill that is stored in its token.
type progress struct {
	Version int      `json:"version"`
	Schema  string   `json:"schema"`
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
	// Key is the key of the last row that was read, nil before the first.
	Key []string `json:"key,omitempty"`
	// Exhausted reports that no rows follow Key.
	Exhausted bool `json:"exhausted,omitempty"`
	// Reread holds the keys of rows that have to be read again, wherever they are.
	Reread     map[string][]string `json:"-"`
	RereadList [][]string          `json:"again,omitempty"`
	Done       bool                `json:"done,omitempty"`
}

// String returns the token. Equal progress has equal tokens.
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
		return "" // cannot happen for texts, numbers and lists of them
	}
	return string(text)
}

// parse parses a token, which must belong to the table.
func (p *progress) parse(token, schema, table string) error {
	var read progress
	if err := json.Unmarshal([]byte(token), &read); err != nil || read.Version != 1 || len(read.Columns) == 0 {
		return newInvalidError(FieldToken, token, "a value of Backfill.Token")
	}
	if read.Schema != schema || read.Table != table {
		return newInvalidError(FieldToken, token, "a token of the table "+schema+"."+table)
	}
	read.Reread = map[string][]string{}
	for i, key := range append(read.RereadList, read.Key) {
		isNone := key == nil && i == len(read.RereadList) // no row was read yet
		if !isNone && len(key) != len(read.Columns) {
			return newInvalidError(FieldToken, token, "a value of Backfill.Token: a key has a value for each column")
		}
		if !decodeKey(key) {
			return newInvalidError(FieldToken, token, "a value of Backfill.Token: a value that is not UTF-8 is in hexadecimal digits")
		}
	}
	for _, key := range read.RereadList {
		read.Reread[joinKey(key)] = key
	}
	*p = read
	return nil
}

// hexPrefix precedes the hexadecimal digits of a value that is not UTF-8, which JSON cannot hold. Postgres' texts
// cannot contain this character.
const hexPrefix = "\x00"

// encodeKey returns a key as it is stored in a token.
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

// decodeKey reverses encodeKey in place. It reports whether that was possible.
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

// joinKey returns a text that is different for different keys.
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

// keyReader reads keys from rows. It belongs to one goroutine.
type keyReader struct {
	columns  []string
	relation *Relation // of indexes
	indexes  []int
}

// readKey returns the key of a row; ok is false if the table no longer has the columns. Values that an update has left
// unchanged are taken from before.
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
		if v.State == ValueUnchanged && before != nil {
			v = before[place]
		}
		if v.State != ValuePresent {
			return nil, false
		}
		key[i] = v.Text
	}
	return key, true
}
