package difference

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Value is a JSON value that keeps the order of members, and numbers as they are written.
type Value struct {
	// Opens is '{' for an object, '[' for an array, and 0 for anything else.
	Opens byte
	// Members are the members of an object, or the elements of an array, named by index as [0].
	Members []Member
	// text is the text of any other value.
	text json.RawMessage
}

// Member is a part of an object or an array.
type Member struct {
	Name  string
	Value *Value
}

// parseValue parses a text. It returns nil if the text is empty or not JSON, or nested deeper than encoding/json accepts.
func parseValue(text json.RawMessage) *Value {
	if !json.Valid(text) {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	value, err := readValue(decoder)
	if err != nil {
		return nil
	}
	return value
}

func readValue(decoder *json.Decoder) (*Value, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	opens, isContainer := token.(json.Delim)
	if !isContainer {
		return &Value{text: encodeScalar(token)}, nil
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
		member, err := readValue(decoder)
		if err != nil {
			return nil, err
		}
		if place, isDouble := places[name]; isDouble { // the last one wins, as in encoding/json
			value.Members[place].Value = member
			continue
		}
		places[name] = len(value.Members)
		value.Members = append(value.Members, Member{name, member})
	}
	_, err = decoder.Token()
	return value, err
}

// JSON returns the value without spaces; nil for a nil Value.
func (v *Value) JSON() json.RawMessage {
	if v == nil {
		return nil
	}
	var b bytes.Buffer
	v.writeJSON(&b)
	return b.Bytes()
}

func (v *Value) writeJSON(b *bytes.Buffer) {
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
			b.Write(encodeScalar(m.Name))
			b.WriteByte(':')
		}
		m.Value.writeJSON(b)
	}
	b.WriteByte(v.Opens + 2) // the closing bracket is two after the opening one in ASCII
}

// encodeScalar encodes a value that is neither an object nor an array.
func encodeScalar(value any) json.RawMessage {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return nil
	}
	return bytes.TrimSpace(b.Bytes())
}
