package delta_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"github.com/chariot-giving/delta/delta"
)

// AESCodec encrypts objects with AES-256-GCM. Each stored object names its key, so keys can be replaced.
type AESCodec struct {
	current string
	keys    map[string]cipher.AEAD
}

// NewAESCodec makes a codec that encrypts with the current key, and decrypts with any of them, each of 32 bytes.
func NewAESCodec(current string, keys map[string][]byte) (*AESCodec, error) {
	c := &AESCodec{current: current, keys: map[string]cipher.AEAD{}}
	for name, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
		if c.keys[name], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
	}
	if c.keys[current] == nil {
		return nil, fmt.Errorf("there is no key %q", current)
	}
	return c, nil
}

func (c *AESCodec) EncodeObject(_ context.Context, ref delta.Ref, object []byte) ([]byte, error) {
	header := append([]byte(c.current), 0)
	return c.keys[c.current].Seal(header, nil, object, []byte(ref.String())), nil
}

func (c *AESCodec) DecodeObject(_ context.Context, ref delta.Ref, encoded []byte) ([]byte, error) {
	name, sealed, _ := bytes.Cut(encoded, []byte{0})
	key := c.keys[string(name)]
	if key == nil {
		return nil, fmt.Errorf("there is no key %q", name)
	}
	return key.Open(nil, nil, sealed, []byte(ref.String()))
}

// A codec encrypts what Postgres stores of objects.
func ExampleObjectCodec() {
	pool, _, _ := openStack()
	key, hashKey := make([]byte, 32), make([]byte, 32) // from your secret store
	_, _ = rand.Read(key)
	_, _ = rand.Read(hashKey)
	codec, err := NewAESCodec("2026-11", map[string][]byte{"2026-11": key})
	if err != nil {
		panic(err)
	}
	client, err := delta.NewClient(pool, &delta.Config{ObjectCodec: codec, ObjectHashKey: hashKey})
	if err != nil {
		panic(err)
	}
	if _, err := client.Inform(ctx, &User{UserID: "ada", Name: "Ada Lovelace"}, nil); err != nil {
		panic(err)
	}

	var stored []byte
	if err := pool.QueryRow(ctx, "SELECT object FROM delta_resource").Scan(&stored); err != nil {
		panic(err)
	}
	user, err := delta.GetAs[*User](ctx, client, "ada")
	if err != nil {
		panic(err)
	}
	fmt.Println(bytes.Contains(stored, []byte("Ada")), user.Object.Name)
	// Output: false Ada Lovelace
}
