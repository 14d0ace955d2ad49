package difference

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Value is a JSON value with the members of its objects in their order, and its numbers as they are written.
type Value struct {
	// Opens is '{' for an object, '[' for an array, and 0 for anything else.
	Opens byte
	// Members are those of an object, or the elements of an array, whose names are their places as [0].
	Members []Member
	// text is that of anything else.
	text json.RawMessage
}

// Member is a part of an object or an array.
type Member struct {
	Name  string
	Value *Value
}

// parse reads a text; nil for one that is empty or no JSON, or nested deeper than encoding/json takes.
func parse(text json.RawMessage) *Value {
	if !json.Valid(text) {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	value, err := read(decoder)
	if err != nil {
		return nil
	}
	return value
}

func read(decoder *json.Decoder) (*Value, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	opens, isContainer := token.(json.Delim)
	if !isContainer {
		return &Value{text: encode(token)}, nil
	}
	value, places := &Value{Opens: byte(opens)}, map[string]int{}
	for decoder.More() {
		name := fmt.Sprintf("[%d]", len(value.Members))
		if opens == '{' {
			key, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			name, _ = key.(string)
		}
		member, err := read(decoder)
		if err != nil {
			return nil, err
		}
		if place, isDouble := places[name]; isDouble { // the last one counts, as for encoding/json
			value.Members[place].Value = member
			continue
		}
		places[name] = len(value.Members)
		value.Members = append(value.Members, Member{name, member})
	}
	_, err = decoder.Token()
	return value, err
}

// JSON is the value without spaces; nil for none.
func (v *Value) JSON() json.RawMessage {
	if v == nil {
		return nil
	}
	var b bytes.Buffer
	v.write(&b)
	return b.Bytes()
}

func (v *Value) write(b *bytes.Buffer) {
	if v.Opens == 0 {
		b.Write(v.text)
		return
	}
	b.WriteByte(v.Opens)
	for i, m := range v.Members {
		if i > 0 {
			b.WriteByte(',')
		}
		if v.Opens == '{' {
			b.Write(encode(m.Name))
			b.WriteByte(':')
		}
		m.Value.write(b)
	}
	b.WriteByte(v.Opens + 2) // the closing bracket is two after the opening one in ASCII
}

// encode is a value that is no object and no array as JSON.
func encode(value any) json.RawMessage {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return nil
	}
	return bytes.TrimSpace(b.Bytes())
}
