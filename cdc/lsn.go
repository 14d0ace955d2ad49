package cdc

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the server's write-ahead log, in bytes. Zero means no position.
type LSN uint64

// ParseLSN parses the form that Postgres prints, such as 16/B374D848. It fails with an [*InvalidError] on anything
// else.
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	h, err := parseHex(high)
	if found && err == nil {
		var l uint64
		if l, err = parseHex(low); err == nil {
			return LSN(h<<32 | l), nil
		}
	}
	return 0, newInvalidError(FieldLSN, s, "two hexadecimal numbers of at most 8 digits with a slash between them")
}

func parseHex(s string) (uint64, error) {
	if strings.ContainsAny(s, "+-_") {
		return 0, strconv.ErrSyntax
	}
	if len(s) > 8 {
		return 0, strconv.ErrRange
	}
	return strconv.ParseUint(s, 16, 32)
}

// String returns the form that Postgres prints.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint64(l)&0xFFFFFFFF) }

// MarshalText returns [LSN.String].
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText parses as [ParseLSN] does.
func (l *LSN) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLSN(string(text))
	return err
}
