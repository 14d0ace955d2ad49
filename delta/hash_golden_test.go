package delta

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/hashes.tsv, for objects that are added")

const goldenHashes = "testdata/hashes.tsv"

// TestHashesAreStable compares the canonical forms and hashes of many objects with those of earlier versions of Delta, its libraries and Go. Hashes
// are stored with the resources: if an upgrade changed them, it would sync every resource again.
func TestHashesAreStable(t *testing.T) {
	t.Parallel()
	cases := append(handwrittenCases(), generatedCases()...)
	require.GreaterOrEqual(t, len(cases), 400)

	// A line is a name, a canonical form and a hash; or, if Delta refuses the object, a name, Delta's error and a dash.
	lines, accepted := make(map[string]string, len(cases)), 0
	var written bytes.Buffer
	for _, c := range cases {
		require.NotContains(t, lines, c.name, "two objects have the same name")
		lines[c.name] = c.line(t)
		written.WriteString(lines[c.name] + "\n")
		if !strings.HasSuffix(lines[c.name], "\t-") {
			accepted++
		}
	}
	require.GreaterOrEqual(t, accepted, 400)
	if *update {
		require.NoError(t, os.WriteFile(goldenHashes, written.Bytes(), 0o600))
	}

	golden, err := os.ReadFile(goldenHashes)
	require.NoError(t, err)
	known := make(map[string]bool, len(cases))
	for want := range strings.SplitSeq(strings.TrimSuffix(string(golden), "\n"), "\n") {
		name, _, _ := strings.Cut(want, "\t")
		known[name] = true
		got, ok := lines[name]
		if !ok {
			t.Errorf("%s is in %s, but not among the objects: keep it, for the hashes of such objects are stored", name,
				goldenHashes)
			continue
		}
		switch {
		case got == want:
		case strings.HasSuffix(want, "\t-"):
			t.Errorf("%s was refused by earlier versions, and now is not, or for another reason.\nwas: %q\nis:  %.2000q", name, want, got)
		case strings.HasSuffix(got, "\t-"):
			t.Errorf("%s was accepted by earlier versions, and now is refused: users can no longer inform of such objects.\n"+
				"was: %.2000q\nis:  %q", name, want, got)
		default:
			t.Errorf("The hash of %s is another than in earlier versions.\n"+
				"Hashes are stored. With other ones, every resource of every user is synced again after an upgrade.\n"+
				"Keep the bytes as they were, by options of the library; otherwise this needs a migration.\n"+
				"was: %.2000q\nis:  %.2000q", name, want, got)
		}
	}
	for _, c := range cases {
		if !known[c.name] {
			t.Errorf("%s is not in %s: add it with -update, and see that no other line changes", c.name, goldenHashes)
		}
	}
}

type goldenCase struct {
	name   string
	object Object
}

// line encodes the object with the function that every inform calls.
func (c goldenCase) line(t *testing.T) string {
	t.Helper()
	params, err := encodeObject(c.object, nil, nil)
	if err != nil {
		// Error texts of libraries may change, because they are not stored.
		if wrong := new(InputError); errors.As(err, &wrong) {
			return c.name + "\terror: " + wrong.Rule + "\t-"
		}
		ours, _, found := strings.Cut(err.Error(), "JSON: ")
		require.True(t, found, "%s: %v", c.name, err)
		return c.name + "\terror: " + ours + "JSON\t-"
	}

	form, err := canonicalJSON(params.EncodedObject)
	require.NoError(t, err, c.name)
	sum := sha256.Sum256(form)
	require.Equal(t, sum[:], params.Hash, "%s: the hash is not that of the canonical form", c.name)
	again, err := canonicalJSON(form)
	require.NoError(t, err, c.name)
	require.Equal(t, string(form), string(again), "%s: the canonical form has another canonical form", c.name)
	require.NotContains(t, string(form), "\n", c.name)
	require.NotContains(t, string(form), "\t", c.name)
	return c.name + "\t" + string(form) + "\t" + hex.EncodeToString(params.Hash)
}

// hashed is an object that contains the value.
type hashed struct {
	Value any `json:"value"`
}

func (hashed) Kind() string { return "hashed" }
func (hashed) ID() string   { return "1" }

// Objects that are not structs, or have their own MarshalJSON.
type (
	hashedText   string
	hashedNumber int64
	hashedMap    map[string]any
	hashedSlice  []any
	hashedRaw    string
	hashedSelf   struct{ Secret string }
)

func (hashedText) Kind() string                    { return "hashed" }
func (hashedText) ID() string                      { return "1" }
func (hashedNumber) Kind() string                  { return "hashed" }
func (hashedNumber) ID() string                    { return "1" }
func (hashedMap) Kind() string                     { return "hashed" }
func (hashedMap) ID() string                       { return "1" }
func (hashedSlice) Kind() string                   { return "hashed" }
func (hashedSlice) ID() string                     { return "1" }
func (hashedRaw) Kind() string                     { return "hashed" }
func (hashedRaw) ID() string                       { return "1" }
func (r hashedRaw) MarshalJSON() ([]byte, error)   { return []byte(r), nil }
func (*hashedSelf) Kind() string                   { return "hashed" }
func (*hashedSelf) ID() string                     { return "1" }
func (s *hashedSelf) MarshalJSON() ([]byte, error) { return json.Marshal("<" + s.Secret + ">") }

// hashedAll has a field for each tag and each type that users may have.
type hashedAll struct {
	hashed

	Bool       bool    `json:"bool"`
	Int8       int8    `json:"int8"`
	Uint16     uint16  `json:"uint16"`
	Float32    float32 `json:"float32"`
	Float64    float64 `json:"float64"`
	Untagged   string
	unexported string

	Skipped string `json:"-"`
	Dash    string `json:"-,"` //nolint:staticcheck // a field named "-"
	Escaped string `json:"<&>"`
	Umlaut  string `json:"größe"`

	OmitEmptyString string         `json:"oe_string,omitempty"`
	OmitEmptyInt    int            `json:"oe_int,omitempty"`
	OmitEmptyBool   bool           `json:"oe_bool,omitempty"`
	OmitEmptyMap    map[string]int `json:"oe_map,omitempty"`
	OmitEmptySlice  []int          `json:"oe_slice,omitempty"`
	OmitEmptyArray  [0]int         `json:"oe_array,omitempty"`
	OmitEmptyStruct struct{}       `json:"oe_struct,omitempty"`
	OmitEmptyTime   time.Time      `json:"oe_time,omitempty"`
	OmitEmptyPtr    *int           `json:"oe_ptr,omitempty"`
	OmitEmptyAny    any            `json:"oe_any,omitempty"`

	OmitZeroString string          `json:"oz_string,omitzero"`
	OmitZeroMap    map[string]int  `json:"oz_map,omitzero"`
	OmitZeroSlice  []int           `json:"oz_slice,omitzero"`
	OmitZeroStruct struct{ A int } `json:"oz_struct,omitzero"`
	OmitZeroTime   time.Time       `json:"oz_time,omitzero"`
	OmitZeroOwn    ownZero         `json:"oz_own,omitzero"`
	OmitBoth       []int           `json:"ob,omitempty,omitzero"`

	StringInt    int64   `json:"s_int,string"`
	StringUint   uint64  `json:"s_uint,string"`
	StringFloat  float64 `json:"s_float,string"`
	StringBool   bool    `json:"s_bool,string"`
	StringString string  `json:"s_string,string"`
	StringPtr    *int    `json:"s_ptr,string"`
	StringSlice  []int   `json:"s_slice,string"` //nolint:staticcheck // users may have this tag, which has no effect

	Raw     json.RawMessage `json:"raw"`
	Text    jsontext.Value  `json:"text"`
	Number  json.Number     `json:"number"`
	Time    time.Time       `json:"time"`
	Wait    time.Duration   `json:"wait"`
	Bytes   []byte          `json:"bytes"`
	Array   [3]byte         `json:"array"`
	Nil     *hashedAll      `json:"nil"`
	Any     any             `json:"any"`
	PtrPtr  **int           `json:"ptrptr"`
	Map     map[string]any  `json:"map"`
	ByValue byValue         `json:"by_value"`
	ByPtr   *byPointer      `json:"by_ptr"`
	PtrIn   byPointer       `json:"ptr_in"`
}

type ownZero struct{ N int }

func (z ownZero) IsZero() bool { return z.N == 7 }

// Implementers of the interfaces of encoding/json.
type (
	byValue   struct{ N int }
	byPointer struct{ N int }
	textValue struct{ S string }
	textKey   struct{ S string }
	both      struct{}
	wrongJSON struct{}
	failing   struct{}
)

func (v byValue) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, " { \"z\" : %d ,\n\t\"a\" : \"\\u003c\\/\" } ", v.N), nil
}

func (v *byPointer) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `"pointer %d"`, v.N), nil }
func (v textValue) MarshalText() ([]byte, error)  { return []byte(v.S), nil }
func (v textKey) MarshalText() ([]byte, error)    { return []byte("key " + v.S), nil }
func (both) MarshalJSON() ([]byte, error)         { return []byte(`"json"`), nil }
func (both) MarshalText() ([]byte, error)         { return []byte("text"), nil }
func (wrongJSON) MarshalJSON() ([]byte, error)    { return []byte(`{"a":`), nil }
func (failing) MarshalJSON() ([]byte, error)      { return nil, errors.New("it fails") }

// Embedded structs: outer fields win, and two fields of the same depth hide each other.
type (
	inner struct {
		A, B string
		C    string `json:"c"`
	}
	sibling struct {
		B string
		D string `json:"d,omitempty"`
	}
	outer struct {
		inner
		*sibling
		A int
	}
	namedInner struct {
		inner `json:"in"`
		A     int
	}
	timed struct {
		time.Time
		A int
	}
)

type (
	myString string
	myInt    int
	myFloat  float64
	myBytes  []byte
	myByte   byte
)
