package db

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/chariot-giving/delta/delta/deltatype"
)

// turning is a codec that turns each byte, and misbehaves on demand.
type turning struct {
	panics bool
	fails  error
	output []byte
}

func (c turning) EncodeObject(_ context.Context, _ deltatype.Ref, object []byte) ([]byte, error) {
	return c.turn(object)
}

func (c turning) DecodeObject(ctx context.Context, _ deltatype.Ref, encoded []byte) ([]byte, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return nil, errors.New("the call has no bound")
	}
	return c.turn(encoded)
}

func (c turning) turn(in []byte) ([]byte, error) {
	if c.panics {
		panic("the secret is " + string(in))
	}
	if c.fails != nil || c.output != nil {
		return c.output, c.fails
	}
	out := make([]byte, len(in))
	for i, b := range in {
		out[i] = ^b
	}
	return out, nil
}

func TestACoderWrapsWhatACodecReturns(t *testing.T) {
	ctx, ref, object := t.Context(), deltatype.Ref{Kind: "k", ObjectID: "i"}, []byte(`{"a": 1}`)
	coder := NewCoder(turning{}, []byte("key"))
	stored, err := coder.Encode(ctx, ref, object)
	require.NoError(t, err)
	require.True(t, deltatype.IsEncoded(stored))
	back, err := coder.Decode(ctx, ref, append([]byte(" "), stored...))
	require.NoError(t, err)
	require.Equal(t, object, back)
	back, err = coder.Decode(ctx, ref, object)
	require.NoError(t, err)
	require.Equal(t, object, back, "stored as it is")
	for _, other := range []string{``, `[]`, `{"delta.encoded": "YQ==", "b": 1}`, `{"b": {"delta.encoded": ""}}`, `"delta.encoded"`} {
		require.False(t, deltatype.IsEncoded([]byte(other)), other)
	}

	var none *Coder
	for _, none := range []*Coder{none, NewCoder(nil, nil)} {
		require.False(t, none.Encodes())
		stored, err = none.Encode(ctx, ref, object)
		require.NoError(t, err)
		require.Equal(t, object, stored)
		require.Equal(t, []byte("h"), none.Hash(ref, []byte("h")))
		require.Nil(t, none.KeyID("x"))
		_, err = none.Decode(ctx, ref, deltatype.WrapEncoded([]byte("x")))
		require.EqualError(t, err, "the stored object is encoded, and this client has no Config.ObjectCodec")
	}

	require.NotEqual(t, coder.Hash(ref, []byte("h")), coder.Hash(deltatype.Ref{Kind: "k", ObjectID: "j"}, []byte("h")), "equal objects of two resources")
	require.NotEqual(t, coder.Hash(ref, []byte("h")), NewCoder(turning{}, []byte("yek")).Hash(ref, []byte("h")))
	require.NotEqual(t, coder.KeyID("x"), coder.KeyID("y"))
}

func TestACodecThatMisbehavesIsAnErrorWithoutTheObject(t *testing.T) {
	ctx, ref, object := t.Context(), deltatype.Ref{Kind: "k", ObjectID: "i"}, []byte(`"secret"`)
	_, err := NewCoder(turning{panics: true}, nil).Encode(ctx, ref, object)
	require.EqualError(t, err, "Config.ObjectCodec does not encode the object of k/i: it panics, with a string")
	for codec, want := range map[*turning]string{
		{panics: true}:                   "Config.ObjectCodec does not decode the stored object: it panics, with a string",
		{fails: errors.New("no key 7")}:  "Config.ObjectCodec does not decode the stored object: no key 7",
		{output: []byte("secret bytes")}: "Config.ObjectCodec does not decode the stored object: it returns no JSON",
		{output: []byte{}}:               "Config.ObjectCodec does not decode the stored object: it returns no JSON",
	} {
		row := &deltatype.ResourceRow{ObjectKind: "k", ObjectID: "i", EncodedObject: deltatype.WrapEncoded(object)}
		err := NewCoder(codec, nil).DecodeRow(ctx, row)
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, ErrUndecoded)
		require.True(t, deltatype.IsEncoded(row.EncodedObject), "it keeps the stored form")
	}
}
