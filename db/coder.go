package db

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// Coder turns objects into their stored form and back, with the user's codec; without one, the stored form is the
// object's JSON. A nil Coder is one without a codec.
type Coder struct {
	codec   deltatype.ObjectCodec
	hashKey []byte
	// agreedAt is when the installation was last found to have the same settings, in nanoseconds since 1970.
	agreedAt atomic.Int64
}

const (
	// codecPatience bounds one call of the codec.
	codecPatience = 10 * time.Second
	// codecAgreement is how long a client without a codec relies on what it read of the installation. Clients that run
	// while a codec is introduced would store objects as they are until they end.
	codecAgreement = time.Minute
)

// NewCoder returns a coder with a codec and the key of hashes; both are nil if objects are stored as they are.
func NewCoder(codec deltatype.ObjectCodec, hashKey []byte) *Coder {
	return &Coder{codec: codec, hashKey: bytes.Clone(hashKey)}
}

// ErrObjectCodec is wrapped in errors of clients whose codec does not agree with that of the installation.
var ErrObjectCodec = errors.New("the client's Config.ObjectCodec and ObjectHashKey do not agree with those of this database")

// ErrNoCodec is returned for an encoded object by a coder without a codec.
var ErrNoCodec = errors.New("the stored object is encoded, and this client has no Config.ObjectCodec")

// ErrUndecoded is wrapped in errors of stored objects that the codec does not decode.
var ErrUndecoded = errors.New("Config.ObjectCodec does not decode the stored object")

// Encodes reports whether there is a codec.
func (c *Coder) Encodes() bool { return c != nil && c.codec != nil }

// KeyID returns the installation's mark of the hash key, which says nothing about the key; nil without a codec.
func (c *Coder) KeyID(installation string) []byte {
	if !c.Encodes() {
		return nil
	}
	return c.sign([]byte("installation"), []byte(installation))
}

// sign returns the keyed hash of some parts.
func (c *Coder) sign(parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, c.hashKey)
	for i, part := range parts {
		if i > 0 {
			mac.Write([]byte{0}) // no part but the last contains it
		}
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// Hash returns the stored hash of an object with a given hash of its JSON. With a codec it is keyed: otherwise a reader of
// the table could try likely objects, and see which rows have the same.
func (c *Coder) Hash(ref deltatype.Ref, plain []byte) []byte {
	if !c.Encodes() {
		return plain
	}
	return c.sign([]byte(ref.Kind), []byte(ref.ObjectID), plain)
}

// Encode returns the stored form of an object.
func (c *Coder) Encode(ctx context.Context, ref deltatype.Ref, object []byte) (stored []byte, err error) {
	if !c.Encodes() || object == nil {
		return object, nil
	}
	encoded, err := c.call(ctx, c.codec.EncodeObject, ref, object)
	if err != nil {
		return nil, fmt.Errorf("Config.ObjectCodec does not encode the object of %s: %w", ref, err)
	}
	return deltatype.WrapEncoded(encoded), nil
}

// Decode returns an object of which the stored form was read.
func (c *Coder) Decode(ctx context.Context, ref deltatype.Ref, stored []byte) (object []byte, err error) {
	encoded, isEncoded := deltatype.UnwrapEncoded(stored)
	switch {
	case !isEncoded:
		return stored, nil
	case !c.Encodes():
		return nil, ErrNoCodec
	}
	object, err = c.call(ctx, c.codec.DecodeObject, ref, encoded)
	if err == nil && !json.Valid(object) {
		err = errors.New("it returns no JSON")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecoded, err)
	}
	return object, nil
}

// call calls a method of the codec.
func (c *Coder) call(
	ctx context.Context, method func(context.Context, deltatype.Ref, []byte) ([]byte, error), ref deltatype.Ref, in []byte,
) (out []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, fmt.Errorf("it panics, with a %T", v) // the value may contain a part of the object
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, codecPatience)
	defer cancel()
	return method(ctx, ref, in)
}

// DecodeRow decodes the object of a row. If that fails, the row keeps the stored form.
func (c *Coder) DecodeRow(ctx context.Context, row *deltatype.ResourceRow) error {
	object, err := c.Decode(ctx, deltatype.Ref{Kind: row.ObjectKind, ObjectID: row.ObjectID}, row.EncodedObject)
	if err != nil {
		return err
	}
	row.EncodedObject = object
	return nil
}

// Agree returns an error if the installation's objects are encoded and the coder has no codec, or one with another hash
// key: it would store objects as they are, or sync every object again. The first client with a codec fixes the key,
// unless it is in a transaction of the caller's.
func (c *Coder) Agree(ctx context.Context, conn DBTX) error {
	if c == nil {
		return nil
	}
	agreed := c.agreedAt.Load()
	if agreed != 0 && (c.Encodes() || time.Since(time.Unix(0, agreed)) < codecAgreement) {
		return nil
	}
	installation, err := New().GetInstallation(ctx, conn)
	if err != nil {
		return err
	}
	own, there := c.KeyID(installation.ID), installation.ObjectHashKey
	if own != nil && there == nil {
		if _, isTx := conn.(pgx.Tx); isTx {
			return nil // another transaction could wait for the row for as long as this one lasts
		}
		if there, err = New().ClaimObjectHashKey(ctx, conn, own); err != nil {
			return err
		}
	}
	if err := c.CheckKey(own, there); err != nil {
		return err
	}
	c.agreedAt.Store(time.Now().UnixNano())
	return nil
}

// CheckKey compares the mark of the client's hash key with that of the installation.
func (c *Coder) CheckKey(own, there []byte) error {
	switch {
	case there == nil || bytes.Equal(own, there):
		return nil
	case own == nil:
		return fmt.Errorf("%w: objects are encoded there, and ObjectCodec is nil: it must be set, as for the clients that work the kinds", ErrObjectCodec)
	default:
		return fmt.Errorf("%w: ObjectHashKey must be the key of the others. To change it, stop all clients, run "+
			"UPDATE delta_installation SET object_hash_key = NULL, start them with the new key, and call ReencodeObjects", ErrObjectCodec)
	}
}

// encodeSet returns a set in its stored form.
func (c *Coder) encodeSet(ctx context.Context, set []*deltatype.ObjectInformParams) ([]*deltatype.ObjectInformParams, error) {
	if !c.Encodes() {
		return set, nil
	}
	stored := make([]*deltatype.ObjectInformParams, len(set))
	for i, o := range set {
		ref, one := deltatype.Ref{Kind: o.Kind, ObjectID: o.ResourceID}, *o
		var err error
		if one.EncodedObject, err = c.Encode(ctx, ref, o.EncodedObject); err != nil {
			return nil, err
		}
		one.Hash, stored[i] = c.Hash(ref, o.Hash), &one
	}
	return stored, nil
}

// decodeResults decodes the objects of results. The object that was sent needs no decoding. A row that does not decode
// keeps its stored form: the inform has ended, and the row says so itself when it is worked.
func (c *Coder) decodeResults(ctx context.Context, found []*deltatype.ObjectInformResult, stored, plain []*deltatype.ObjectInformParams) {
	if !c.Encodes() {
		return
	}
	for i, result := range found {
		switch {
		case result == nil || result.Resource == nil:
		case bytes.Equal(result.Resource.EncodedObject, stored[i].EncodedObject):
			result.Resource.EncodedObject = plain[i].EncodedObject
		default:
			_ = c.DecodeRow(ctx, result.Resource)
		}
	}
}
