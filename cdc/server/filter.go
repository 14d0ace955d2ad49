package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/chariot-giving/delta/cdc"
)

// filter chooses what one client gets, out of what the server allows.
type filter struct {
	allowed, tables []string
	kinds           map[cdc.Kind]bool
	// maxMessage limits the bytes of a message, 0 for no limit. With canChunk, larger values are sent in chunks before their change.
	maxMessage int
	canChunk   bool
}

// minMaxMessage is the smallest limit that a client may set, because names of columns and keys need some room.
const minMaxMessage = 64 << 10

// kinds are the kinds of changes that a client can ask for. Messages are left out by default, because any program can write them.
var kinds = []cdc.Kind{cdc.KindInsert, cdc.KindUpdate, cdc.KindDelete, cdc.KindTruncate, cdc.KindMessage}

// newFilter reads the parameters tables and kinds, each of which is a list with commas, or may be repeated.
func (s *Server) newFilter(query url.Values) (*filter, error) {
	f := &filter{allowed: s.config.Tables, kinds: map[cdc.Kind]bool{}}
	for _, pattern := range splitPatterns(query["tables"]) {
		if _, err := cdc.MatchTable(pattern, ""); err != nil {
			return nil, newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("tables %.100q: it must be a pattern of *, ?, [a-z] and other characters", pattern))
		}
		f.tables = append(f.tables, pattern)
	}
	for _, kind := range splitList(query["kinds"]) {
		if !slices.Contains(kinds, cdc.Kind(kind)) {
			return nil, newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("kinds %.100q: it must be some of insert, update, delete, truncate, message", kind))
		}
		f.kinds[cdc.Kind(kind)] = true
	}
	if len(f.kinds) == 0 {
		for _, kind := range kinds {
			f.kinds[kind] = kind != cdc.KindMessage
		}
	}
	f.kinds[cdc.KindRead] = true // rows of a resync; other streams have none
	return f, f.readMessageLimit(query)
}

// readMessageLimit reads how large a message may be.
func (f *filter) readMessageLimit(query url.Values) (err error) {
	if text := query.Get("max_message"); text != "" {
		if f.maxMessage, err = strconv.Atoi(text); err != nil || f.maxMessage < minMaxMessage {
			return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("max_message %.40q: it must be a number of bytes, %d or more", text, minMaxMessage))
		}
	}
	switch text := query.Get("large"); {
	case text == "" || text == "error":
	case text == "chunks" && f.maxMessage > 0:
		f.canChunk = true
	case text == "chunks":
		return newProblem(http.StatusBadRequest, "invalid", `large "chunks": it needs max_message, beyond which a value comes in chunks`)
	default:
		return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("large %.40q: it must be error or chunks", text))
	}
	return nil
}

// splitPatterns is splitList, except that a comma behind a backslash belongs to a name.
func splitPatterns(values []string) (items []string) {
	const comma = "\x00" // no name can contain it
	for i, v := range values {
		values[i] = strings.ReplaceAll(v, `\,`, comma)
	}
	for _, item := range splitList(values) {
		items = append(items, strings.ReplaceAll(item, comma, ","))
	}
	return items
}

// matchesTable reports whether a table matches one of the patterns, which are valid.
func matchesTable(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		match, _ := cdc.MatchTable(pattern, name)
		return match
	})
}

func splitList(values []string) (items []string) {
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

// checkTables refuses a pattern that matches no table: the client would wait for ever, and acknowledge changes that it wanted.
func (f *filter) checkTables(tables []string) error {
	for _, pattern := range f.tables {
		if !slices.ContainsFunc(tables, func(table string) bool { return matchesTable([]string{pattern}, table) }) {
			return newProblem(http.StatusNotFound, "unknown_table", fmt.Sprintf("tables %.100q: no table matches (schema.table, or a pattern of it); there are %s",
				pattern, strings.Join(tables, ", ")))
		}
	}
	return nil
}

func (f *filter) wantsTable(table string) bool {
	return matchesTable(f.allowed, table) && (len(f.tables) == 0 || matchesTable(f.tables, table))
}
