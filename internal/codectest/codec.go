// Package codectest has a codec of objects for tests.
package codectest

import (
	"bytes"
	"context"
)

// Flipped is a codec that changes each byte. R is the Ref of package delta: this package imports nothing, so that all tests may use it.
type Flipped[R any] struct{}

// EncodeObject changes each byte of object.
func (Flipped[R]) EncodeObject(_ context.Context, _ R, object []byte) ([]byte, error) {
	encoded := bytes.Clone(object)
	for i := range encoded {
		encoded[i] ^= 0xFF
	}
	return encoded, nil
}

// DecodeObject reverses EncodeObject.
func (f Flipped[R]) DecodeObject(ctx context.Context, ref R, encoded []byte) ([]byte, error) {
	return f.EncodeObject(ctx, ref, encoded)
}
