package messagedb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf16"
)

// normalizeJSON writes JSON as Postgres' jsonb has it: keys by length and then by bytes, the last of equal keys, no white space but a blank
// after "," and ":", and numbers without exponents. The memory store does so, that a test sees what the server would give it.
func normalizeJSON(text string) (string, error) {
	if i := loneSurrogate(text); i >= 0 {
		return "", fmt.Errorf("half of a surrogate pair at byte %d", i)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := writeJSONB(&out, value, plainNumber); err != nil {
		return "", err
	}
	return out.String(), nil
}

// sameJSON compares normalized JSON as jsonb does, for which 1.0 and 1.00 are equal. Nil is NULL.
func sameJSON(a, b *string) bool {
	if a == nil || b == nil || *a == *b {
		return a == b || a != nil && b != nil
	}
	shortest := func(text string) string {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var value any
		var out bytes.Buffer
		if decoder.Decode(&value) != nil || writeJSONB(&out, value, shortestNumber) != nil {
			return text
		}
		return out.String()
	}
	return shortest(*a) == shortest(*b)
}

func writeJSONB(out *bytes.Buffer, value any, number func(string) (string, error)) error {
	switch v := value.(type) {
	case nil:
		out.WriteString("null")
	case bool:
		out.WriteString(strconv.FormatBool(v))
	case string:
		writeJSONBString(out, v)
	case json.Number:
		digits, err := number(v.String())
		out.WriteString(digits)
		return err
	case []any:
		out.WriteByte('[')
		for i, element := range v {
			if i > 0 {
				out.WriteString(", ")
			}
			if err := writeJSONB(out, element, number); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	case map[string]any:
		return writeJSONBObject(out, v, number)
	}
	return nil
}

func writeJSONBObject(out *bytes.Buffer, object map[string]any, number func(string) (string, error)) error {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool {
		if len(keys[i]) != len(keys[j]) {
			return len(keys[i]) < len(keys[j])
		}
		return keys[i] < keys[j]
	})
	out.WriteByte('{')
	for i, key := range keys {
		if i > 0 {
			out.WriteString(", ")
		}
		writeJSONBString(out, key)
		out.WriteString(": ")
		if err := writeJSONB(out, object[key], number); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func writeJSONBString(out *bytes.Buffer, s string) {
	out.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			out.WriteByte('\\')
			out.WriteByte(c)
		case c == '\b':
			out.WriteString(`\b`)
		case c == '\f':
			out.WriteString(`\f`)
		case c == '\n':
			out.WriteString(`\n`)
		case c == '\r':
			out.WriteString(`\r`)
		case c == '\t':
			out.WriteString(`\t`)
		case c < ' ':
			fmt.Fprintf(out, `\u%04x`, c)
		default:
			out.WriteByte(c)
		}
	}
	out.WriteByte('"')
}

// The digits that Postgres' numeric can have before and after the point.
const (
	mostWholeDigits    = 131072
	mostFractionDigits = 16383
)

// plainNumber moves the point of a JSON number to where its exponent says, and keeps zeros at its end, as numeric does.
func plainNumber(text string) (string, error) {
	digits, negative := strings.CutPrefix(text, "-")
	mantissa, exponent := digits, 0
	if i := strings.IndexAny(digits, "eE"); i >= 0 {
		mantissa = digits[:i]
		var err error
		if exponent, err = strconv.Atoi(digits[i+1:]); err != nil || exponent > math.MaxInt32/2 || exponent < -math.MaxInt32/2 {
			return "", fmt.Errorf("number %s is out of range", shortenText(text))
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	scale := max(len(fraction)-exponent, 0)
	if scale > mostFractionDigits || len(whole)+exponent > mostWholeDigits {
		return "", fmt.Errorf("number %s is out of range", shortenText(text))
	}
	all := whole + fraction
	point := len(whole) + exponent
	if point < 0 {
		all, point = strings.Repeat("0", -point)+all, 0
	}
	if point > len(all) {
		all += strings.Repeat("0", point-len(all))
	}
	whole, fraction = strings.TrimLeft(all[:point], "0"), all[point:]
	if whole == "" {
		whole = "0"
	}
	plain := whole
	if fraction != "" {
		plain += "." + fraction
	}
	if negative && strings.Trim(plain, "0.") != "" {
		plain = "-" + plain // numeric has no negative zero
	}
	return plain, nil
}

// shortestNumber is a number without zeros at its end.
func shortestNumber(text string) (string, error) {
	plain, err := plainNumber(text)
	if strings.Contains(plain, ".") {
		plain = strings.TrimSuffix(strings.TrimRight(plain, "0"), ".")
	}
	return plain, err
}

// loneSurrogate finds an escaped half of a surrogate pair, which jsonb refuses and encoding/json replaces silently; -1 if there is none.
func loneSurrogate(text string) int {
	for i := 0; i+1 < len(text); {
		if text[i] != '\\' {
			i++
			continue
		}
		first := escapedUnit(text[i:])
		if first < 0 || !utf16.IsSurrogate(first) {
			i += 2
			continue
		}
		second := rune(-1)
		if i+6 <= len(text) {
			second = escapedUnit(text[i+6:])
		}
		if second < 0 || utf16.DecodeRune(first, second) == '\uFFFD' {
			return i
		}
		i += 12
	}
	return -1
}

// escapedUnit is the number behind \u at the beginning of a text, -1 if there is none.
func escapedUnit(text string) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(text[2:6], 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
