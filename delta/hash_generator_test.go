package delta

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// generator makes values. It uses only the PCG, whose algorithm is specified: methods of rand.Rand might change.
type generator struct{ source *rand.PCG }

func (g generator) below(n int) int { return int(g.source.Uint64() % uint64(n)) }

func (g generator) float() float64 {
	for {
		switch f := math.Float64frombits(g.source.Uint64()); {
		case math.IsNaN(f) || math.IsInf(f, 0):
		case g.below(2) == 0:
			return f
		default: // a number as people write it
			return float64(int64(g.source.Uint64()>>40)) / []float64{1, 10, 1000, 1e7, 3, 1e-9, 1e-15}[g.below(7)]
		}
	}
}

var pieces = []string{
	"a", "B", "key", "0", " ", "\t", "\n", "\x01", "\x1f", "\x7f", `"`, `\`, "/", "<", ">", "&", "\u0080", "é", "e\u0301",
	"ß", "€", "\u2028", "\u2029", "\ud7ff", "\ue000", "\ufb00",
	"\ufffd", "\uffff", "\U00010000", "😀", "𝔘", "\U0010ffff", "日本", "\xff", "\xe2\x82", "ordinary words ",
}

func (g generator) text() string {
	var b strings.Builder
	for range g.below(8) {
		b.WriteString(pieces[g.below(len(pieces))])
	}
	return b.String()
}

func (g generator) value(depth int) any {
	kinds := 16
	if depth == 0 {
		kinds = 12
	}
	switch g.below(kinds) {
	case 0:
		return nil
	case 1:
		return g.below(2) == 0
	case 2:
		return int64(g.source.Uint64() >> g.below(64))
	case 3:
		return g.source.Uint64() >> g.below(64)
	case 4:
		return g.float()
	case 5:
		return float32(g.below(1<<24)) / float32([]int{1, 3, 10, 1000}[g.below(4)])
	case 6, 7:
		return g.text()
	case 8:
		return []byte(g.text())
	case 9:
		return time.Unix(int64(g.below(1<<33)), int64(g.below(1e9))).In(time.FixedZone("", (g.below(97)-48)*900))
	case 10:
		return json.Number(strconv.FormatFloat(g.float(), "efg"[g.below(3)], g.below(20), 64))
	case 11:
		return json.RawMessage(g.raw(depth))
	case 12:
		s := make([]any, g.below(5))
		for i := range s {
			s[i] = g.value(depth - 1)
		}
		return s
	case 13:
		s := struct {
			Z, A any
			P    *any `json:"p,omitempty"`
			T    any  `json:"<t>"`
		}{Z: g.value(depth - 1), A: g.value(depth - 1), T: g.text()}
		if g.below(2) == 0 {
			p := g.value(depth - 1)
			s.P = &p
		}
		return s
	case 14:
		m := map[int64]any{}
		for range g.below(5) {
			m[int64(g.source.Uint64()>>g.below(64))] = g.value(depth - 1)
		}
		return m
	default:
		return g.members(depth)
	}
}

func (g generator) members(depth int) map[string]any {
	m := map[string]any{}
	for range g.below(7) {
		m[strings.ToValidUTF8(g.text(), "?")] = g.value(depth - 1) // replaced names would be equal, and their order undefined
	}
	return m
}

// raw returns a JSON text with white space, escapes, numbers in many forms, and members in any order, some twice.
func (g generator) raw(depth int) string {
	space := func() string { return strings.Repeat([]string{" ", "\n", "\t", "\r\n"}[g.below(4)], g.below(3)) }
	kinds := 7
	if depth <= 0 {
		kinds = 4
	}
	switch g.below(kinds) {
	case 0:
		return space() + []string{
			"null", "true", "false", "0", "-0", "1.0", "1e2", "1E+2",
			"12345678901234567890.0",
		}[g.below(9)] + space()
	case 1:
		return strconv.FormatFloat(g.float(), "efgEG"[g.below(5)], g.below(22)-1, 64)
	case 2, 3:
		return g.quote()
	case 4:
		parts := make([]string, g.below(5))
		for i := range parts {
			parts[i] = space() + g.raw(depth-1) + space()
		}
		return "[" + space() + strings.Join(parts, ",") + "]"
	default:
		parts := make([]string, g.below(6))
		for i := range parts {
			parts[i] = space() + g.quote() + space() + ":" + space() + g.raw(depth-1)
		}
		return "{" + space() + strings.Join(parts, ",") + space() + "}"
	}
}

func (g generator) quote() string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(g.text(), "?") {
		switch {
		case r < ' ' || r == '"' || r == '\\' || g.below(4) == 0:
			if r > 0xffff {
				r -= 0x10000
				fmt.Fprintf(&b, `\u%04x`, 0xd800+r>>10)
				r = 0xdc00 + r&0x3ff
			}
			fmt.Fprintf(&b, []string{`\u%04x`, `\u%04X`}[g.below(2)], r)
		default:
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`
}

func generatedCases() (cases []goldenCase) {
	g := generator{rand.NewPCG(1, 2)}
	for i := range 240 {
		var o Object
		switch i % 4 {
		case 0:
			o = hashed{g.value(3)}
		case 1:
			o = hashedMap(g.members(3))
		case 2:
			o = hashedRaw(g.raw(4))
		default:
			o = hashedSlice{g.value(2), g.text(), g.value(2)}
		}
		cases = append(cases, goldenCase{fmt.Sprintf("generated-%03d", i), o})
	}
	return cases
}
