package deltatype

import (
	"bytes"
	"context"
	"encoding/json"
)

// ObjectCodec encodes objects before they are stored in Postgres, such as by encryption, and decodes them when they are read. Its methods are called
// concurrently, with a context of ten seconds at most, and once for each object: a codec that needs a key service keeps its data keys in memory. A panic is
// an error. The text of an error is stored and logged, so it must not contain a part of the object or a key.
//
// ref names the object. An encryption authenticates it (as additional data), so that nobody who can write to the table can exchange two ciphertexts.
type ObjectCodec interface {
	// EncodeObject returns the stored form of an object's JSON. It must name its key in it, so that DecodeObject knows the key after a newer one is in
	// use. Two calls for the same object should return different bytes.
	EncodeObject(ctx context.Context, ref Ref, object []byte) ([]byte, error)
	// DecodeObject returns the JSON that EncodeObject was called with. It returns an error for bytes that it cannot decode, and never another object.
	DecodeObject(ctx context.Context, ref Ref, encoded []byte) ([]byte, error)
}

// encodedMember is the only member of the JSON object that stands for an encoded object, with the codec's bytes in base64.
const encodedMember = "delta.encoded"

// encodedObject is the stored form of an encoded object.
type encodedObject struct {
	Encoded []byte `json:"delta.encoded"`
}

// WrapEncoded returns the JSON that is stored for the bytes of an [ObjectCodec].
func WrapEncoded(encoded []byte) []byte {
	wrapped, _ := json.Marshal(encodedObject{encoded}) // it cannot fail
	return wrapped
}

// UnwrapEncoded returns the bytes of the codec in a stored object. isEncoded is false for an object that is stored as it is.
func UnwrapEncoded(stored []byte) (encoded []byte, isEncoded bool) {
	if !IsEncoded(stored) {
		return nil, false
	}
	var object encodedObject
	if err := json.Unmarshal(stored, &object); err != nil {
		return nil, true // it is in no other form that could be used
	}
	return object.Encoded, true
}

// IsEncoded reports whether the JSON of an object, such as [ResourceRow].EncodedObject, is in its stored, encoded form: an object with the one member
// "delta.encoded". A client reads it so if it has no [ObjectCodec], or one that cannot decode the object.
func IsEncoded(object []byte) bool {
	rest := bytes.TrimLeft(object, " \t\r\n")
	if len(rest) == 0 || rest[0] != '{' {
		return false
	}
	rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	if !bytes.HasPrefix(rest, []byte(`"`+encodedMember+`"`)) {
		return false
	}
	var members map[string]json.RawMessage
	return json.Unmarshal(object, &members) == nil && len(members) == 1
}
