package delta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// handwrittenCases returns objects that are known to be difficult. Their names have numbers: add to the end of a list.
func handwrittenCases() (cases []goldenCase) {
	object := func(name string, o Object) { cases = append(cases, goldenCase{name, o}) }
	value := func(name string, v any) { object(name, hashed{v}) }
	values := func(name string, all ...any) {
		for i, v := range all {
			value(fmt.Sprintf("%s-%d", name, i), v)
		}
	}
	raws := func(name string, all ...string) {
		for i, text := range all {
			value(fmt.Sprintf("%s-field-%d", name, i), json.RawMessage(text))
			object(fmt.Sprintf("%s-object-%d", name, i), hashedRaw(text))
		}
	}

	values("int", 0, 1, -1, int8(math.MinInt8), uint8(math.MaxUint8), int16(math.MinInt16), int32(math.MinInt32),
		uint32(math.MaxUint32), int64(1)<<53-1, int64(1)<<53, int64(1)<<53+1, -(int64(1)<<53 + 1), int64(1)<<60, int64(1)<<60+1,
		int64(math.MaxInt64), int64(math.MinInt64), uint64(math.MaxInt64)+1, uint64(math.MaxUint64), uint64(math.MaxUint64)-1,
		uintptr(1), myInt(7), 'x')
	values("float", 0.0, math.Copysign(0, -1), 1.0, 1.5, 100.0, 1e6, 123456789.0, 1e15, 1e16, 1e17, 1e20,
		999999999999999900000.0, 1e21, 1e22, 1.5e21, 1e-5, 1e-6, 1e-7, 1.5e-7, 9.5e-7, 0.000001, 5e-324, -5e-324,
		2.2250738585072014e-308, 0.1, 0.2, 0.1+0.2, 1.0/3, 1e308, math.MaxFloat64, -math.MaxFloat64, math.Pi, math.E,
		float64(1<<53), float64(1<<60), 4.35, 1e23, 333333333.33333329, math.NaN(), math.Inf(1), math.Inf(-1), myFloat(2.5))
	values("float32", float32(0), float32(math.Copysign(0, -1)), float32(0.1), float32(0.3), float32(1e21), float32(1e20),
		float32(1e-7), float32(1e-6), float32(16777216), float32(16777217), float32(math.MaxFloat32),
		float32(math.SmallestNonzeroFloat32), float32(3.4e38), float32(1)/3, float32(math.Inf(1)))
	values("number", json.Number(""), json.Number("0"), json.Number("-0"), json.Number("1"), json.Number("1.0"),
		json.Number("1.00"), json.Number("1e0"), json.Number("1E+2"), json.Number("1e400"), json.Number("-1e-400"),
		json.Number("9007199254740993"), json.Number("18446744073709551616"), json.Number("123456789012345678901234567890"),
		json.Number("0.12345678901234567890"), json.Number("-0.0"), json.Number("01"), json.Number("NaN"), json.Number("0x10"),
		json.Number("1."), json.Number(" 1"))
	raws("rawnumber", "-0", "-0.0", "-0e0", "0.0", "1.0", "1.10", "1e5", "1E5", "1e+05", "100000", "1e999", "9007199254740993",
		"-9007199254740993", "1152921504606846977", "18446744073709551615", "18446744073709551616",
		"0.1000000000000000055511151231257827", "1e-7", "1E-07", "4.9E-324", "1e-999", "01", "+1", ".5", "1.", "1e", "NaN",
		"Infinity")

	// Each control character, and characters that JSON, HTML, JavaScript or Unicode treat specially.
	for c := range rune(0x20) {
		value(fmt.Sprintf("control-%02x", c), "a"+string(c)+"z")
	}
	values("string", "", " ", "a", "\x7f", "\u0080", "\u009f", `"`, `""`, `\`, `/`, `\/`, `\\u0041`, `'`, "`", "<", ">", "&",
		"<script>&amp;</script>", "\u2028", "\u2029", "a\u2028b\u2029c", "\ufeff", "\ufffd", "\uffff", "\ufdd0", "é", "e\u0301",
		"ﬁ", "Å", "A\u030a", "\u212b", "ß", "İ", "한글", "한글", "日本語", "עברית", "\u202eabc", "😀", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "𝔘",
		"\U0001f600\U0010ffff", "\U00010000", "\ud7ff\ue000", "a\xffb", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80",
		"\xe2\x82", "line\r\nline\ttab\bback\ffeed\vvertical", strings.Repeat("long ", 400), strings.Repeat("€", 500),
		strings.Repeat("<", 300), strings.Repeat("\U0001f600", 200), strings.Repeat("\x01", 100), "true", "null", "1", "{}",
		"NaN", "2026-01-02T03:04:05Z", myString("<mine>"))
	raws("rawstring", `"\u0041"`, `"\u00e9"`, `"\u00E9"`, `"é"`, `"e\u0301"`, `"\/"`, `"/"`, `"\u002f"`, `"\u003c"`, `"<"`,
		`"\u2028"`, "\"\u2028\"", "\"\u2029\"", `"\ud83d\ude00"`, `"\uD83D\uDE00"`, `"😀"`, `"\b\f\n\r\t"`,
		`"\u0008\u000c\u000a\u000d\u0009"`, `"\u0001\u001F"`, `"\u007f"`, "\"\x7f\"", `"\u0080"`, `"\ufffd"`, `"\uFFFF"`,
		`"\ud800"`, `"\udc00"`, `"\ud800a"`, `"\udc00\ud800"`, `"\ud800\ud800\udc00"`, `{"\ud800":1}`, `"\u0000"`, `"\\u0000"`,
		`"\\ud800"`, "\"a\xffb\"", "\"a\nb\"", `"\x41"`, `"\u12"`, `"open`)

	raws("rawtext", "null", "true", " false ", "{}", "[]", " { } ", "[ ]", " [ 1 , [ 2 , { } ] ,\r\n\t\"x\" ] ",
		`{"b":1,"a":2}`, "{\n  \"b\" : 1 ,\n  \"a\" : [ ]\n}\n", `{"a":{"z":1,"y":{"x":1,"w":2}},"B":0,"_":0,"":0}`,
		`{"a":1,"a":2}`, `{"a":2,"a":1}`, `{"a":1,"b":2,"a":3,"b":4,"a":5}`, `{"a":1,"\u0061":2}`,
		`{"a":{"b":1,"b":2},"a":{"b":2,"b":1}}`, `[{"b":1,"a":2},{"a":2,"b":1}]`, "", " ", "{", "[1,]", `{"a":1,}`, `{a:1}`,
		"nul", "1 2", "[]{}", "/**/1", `{"ﬀ":1,"😀":2,"z":3,"é":4}`, `{"\ufb00":1,"\ud83d\ude00":2,"\u007a":3}`,
		strings.Repeat("[", 500)+strings.Repeat("]", 500), strings.Repeat("[", 10001)+strings.Repeat("]", 10001),
		strings.Repeat(`{"a":`, 200)+"1"+strings.Repeat("}", 200))
	raws("rfc8785",
		`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],`+
			`"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`,
		`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",`+
			`"1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`)
	values("jsontext", jsontext.Value(nil), jsontext.Value(""), jsontext.Value(" null "),
		jsontext.Value("{ \"b\" : 1.0 , \"a\" : \"\\u003c\" }"), jsontext.Value(`{"a":1,"a":2}`), jsontext.Value(`"\ud800"`),
		jsontext.Value("{"), jsontext.Value("[ 1e2 ,\n-0 ]"))
	values("rawmessage", json.RawMessage(nil), []json.RawMessage{nil, []byte(" 1 "), []byte(`"<"`)},
		map[string]json.RawMessage{"b": []byte("[ ]"), "a": nil})

	// The order of UTF-16 units differs from that of bytes above U+E000. Maps with keys of type float64 or any are not here:
	// encoding/json refuses them, but accepts them when it is built with GOEXPERIMENT=jsonv2.
	values("keys", map[string]int{"😀": 1, "\ufb00": 2}, map[string]int{"\U00010000": 1, "\uffff": 2, "\ue000": 3, "\ud7ff": 4},
		map[string]int{"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😀": 5, "\u0080": 6, "ö": 7}, map[string]int{
			"a😀":      1,
			"a\uffee": 2, "a": 3,
		}, map[string]int{
			"": 1, " ": 2, "a": 3, "A": 4, "aa": 5, "a ": 6, "10": 7, "9": 8, "é": 9,
			"e\u0301": 10, "_": 11, "-": 12,
		}, map[string]int{
			"<": 1, ">": 2, "&": 3, "\u2028": 4, `"`: 5, `\`: 6, "\x01": 7,
			"\t": 8, "/": 9,
		}, map[string]int{"a\xff": 1, "a\ufffe": 2}, map[string]int{"a\xff": 1, "a\xfe": 1},
		map[string]int{"\x00": 1}, map[myString]int{"b": 1, "a": 2}, map[int]string{10: "ten", 9: "nine", -1: "minus", 0: ""},
		map[int64]bool{math.MinInt64: true, math.MaxInt64: false}, map[uint64]bool{math.MaxUint64: true, 2: false, 10: false},
		map[int8]int{-128: 1, 127: 2}, map[myInt]int{3: 1, 20: 2}, map[textKey]int{{"b"}: 1, {"a"}: 2, {"😀"}: 3, {"\ufb00"}: 4},
		map[bool]int{true: 1}, map[[1]int]int{{1}: 1})
	var nilMap map[string]any
	var nilSlice []any
	one, none := 1, (*int)(nil)
	pointer := &one
	values("nested", nilMap, map[string]any{}, nilSlice, []any{}, []any{nil}, [0]int{}, [2]any{}, [][]int{nil, {}, {1}},
		[]map[string]int{nil, {}, {"a": 1}}, map[string]any{
			"nil": nil, "map": nilMap, "slice": nilSlice, "empty": []string{},
			"deep": map[string]any{"b": []any{1, "x", nil, 1.5, true}, "a": map[string]any{}},
		}, []any{
			1, int64(1) << 60, 1.0,
			"1", nil, true,
			[]any{},
			map[string]any{"z": 1, "a": []any{map[string]any{"y": 0, "b": 0}}},
		}, deepValue(300), struct{}{},
		struct{ A, b int }{1, 2}, &struct{ B, A int }{1, 2})
	values("pointer", nil, none, pointer, &pointer, &none, []*int{nil, pointer}, map[string]*int{"a": nil, "b": pointer},
		any(pointer))
	values("bytes", []byte(nil), []byte{}, []byte{0}, []byte("hello"), []byte{0xff, 0xfe, 0xfb}, []byte("ab"),
		bytes.Repeat([]byte{0xa5}, 200), [4]byte{1, 2, 3, 4}, myBytes("mine"), []myByte{1, 2}, [][]byte{nil, {}, {1}}, []int8{
			1,
			-1,
		})
	zone := func(hours, seconds int) *time.Location { return time.FixedZone("somewhere", hours*3600+seconds) }
	values("time", time.Time{}, time.Unix(0, 0).UTC(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4,
		5, 1, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 120000000, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 123456789, zone(2,
		0)), time.Date(2026, 1, 2, 3, 4, 5, 0, zone(-3, -1800)), time.Date(2026, 1, 2, 3, 4, 5, 0, zone(5, 2700)),
		time.Date(2026, 1, 2, 3, 4, 5, 0, zone(0, 0)), time.Date(2026, 1, 2, 3, 4, 5, 0, zone(0, 30)), time.Date(2026, 1, 2, 3,
			4, 5, 0, zone(23, 3540)), time.Date(2026, 1, 2, 3, 4, 5, 0, zone(24, 0)), time.Date(9999, 12, 31, 23, 59, 59, 999999999,
			time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(0, 1, 1,
			0, 0, 0, 0, time.UTC), time.Duration(0), 90*time.Second, -time.Nanosecond, time.March, time.Monday,
		map[string]time.Time{"b": time.Unix(1, 0).UTC(), "a": {}}, timed{time.Unix(5, 0).UTC(), 1}, []time.Time{time.Unix(1<<32,
			500).UTC()})
	values("marshaler", byValue{3}, &byValue{4}, (*byValue)(nil), byPointer{5}, &byPointer{6}, (*byPointer)(nil),
		[]byPointer{{7}}, &[]byPointer{{8}}, map[string]byPointer{"a": {9}}, []byValue{{1}, {2}}, map[string]byValue{
			"b": {1},
			"a": {2},
		}, textValue{"<text> 😀\u2028"}, &textValue{"a\xffb"}, (*textValue)(nil), []textValue{{"x"}, {""}}, both{},
		[]any{both{}}, map[string]any{"x": byValue{1}, "w": textValue{"t"}}, wrongJSON{}, failing{}, []any{failing{}})
	values("refused", make(chan int), func() {}, complex(1, 1), cyclicNode(), cyclicMap(), math.NaN(), []float64{math.Inf(1)})
	values("embedded", outer{inner{"a", "b", "c"}, nil, 1}, outer{inner{"a", "b", "c"}, &sibling{"b2", "d"}, 1}, &outer{},
		namedInner{inner{"a", "b", "c"}, 2}, sibling{}, inner{})

	object("object-empty", hashed{})
	object("object-pointer", &hashed{Value: "<pointer>"})
	object("object-text", hashedText("<text> \u2028"))
	object("object-text-empty", hashedText(""))
	object("object-text-invalid", hashedText("\xff"))
	object("object-number", hashedNumber(1<<60+1))
	object("object-map", hashedMap{"😀": 1, "\ufb00": 2.5, "a": nil, "b": hashedMap{"z": 1, "y": []any{}}})
	object("object-map-empty", hashedMap{})
	object("object-map-nil", hashedMap(nil))
	object("object-slice", hashedSlice{1, "a", nil, hashedSlice{}, hashedSlice(nil)})
	object("object-slice-nil", hashedSlice(nil))
	object("object-self", &hashedSelf{"it & more"})
	object("object-all-zero", hashedAll{})
	object("object-all-zero-pointer", &hashedAll{})
	full := hashedAll{
		hashed: hashed{Value: []any{"embedded"}}, Bool: true, Int8: -128, Uint16: 65535, Float32: 0.1, Float64: 0.1,
		Untagged: "untagged", unexported: "x",
		Skipped: "skipped", Dash: "dash", Escaped: "<&>", Umlaut: "größe",
		OmitEmptyString: "a", OmitEmptyInt: 1, OmitEmptyBool: true, OmitEmptyMap: map[string]int{"b": 1, "a": 2},
		OmitEmptySlice: []int{0}, OmitEmptyPtr: new(int), OmitEmptyAny: 0,
		OmitZeroString: "a", OmitZeroMap: map[string]int{}, OmitZeroSlice: []int{}, OmitZeroStruct: struct{ A int }{1},
		OmitZeroTime: time.Unix(0, 0).UTC(), OmitZeroOwn: ownZero{0}, OmitBoth: []int{1},
		StringInt: math.MinInt64, StringUint: math.MaxUint64, StringFloat: 1e21, StringBool: true, StringString: "<\"é\">",
		StringPtr: pointer, StringSlice: []int{1, 2},
		Raw: []byte(" { \"b\" : 1 , \"a\" : 1.0 } "), Text: []byte("[ 1 , \"\\u0041\" ]"), Number: "1.0",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 678, zone(-7, 0)), Wait: time.Minute,
		Bytes: []byte("bytes"), Array: [3]byte{1, 2, 3}, Nil: &hashedAll{}, Any: map[string]any{"z": byValue{1}, "a": nil},
		PtrPtr: &pointer,
		Map:    map[string]any{"😀": 1, "\ufb00": 2}, ByValue: byValue{1}, ByPtr: &byPointer{2}, PtrIn: byPointer{3},
	}
	object("object-all-full", full)
	object("object-all-full-pointer", &full)
	object("object-all-own-zero", hashedAll{
		OmitZeroOwn: ownZero{7}, OmitEmptySlice: []int{}, OmitEmptyMap: map[string]int{},
		OmitBoth: []int{},
	})
	return cases
}

func deepValue(n int) (v any) {
	for i := range n {
		if v = any([]any{v}); i%3 == 0 {
			v = map[string]any{"d": v, "b": i}
		}
	}
	return v
}

type node struct{ Next *node }

func cyclicNode() *node {
	n := &node{}
	n.Next = n
	return n
}

func cyclicMap() map[string]any {
	m := map[string]any{}
	m["m"] = m
	return m
}
