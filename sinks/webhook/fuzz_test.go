package webhook

import (
	"testing"
	"time"
)

// The answer of a receiver, which may be anybody.
func FuzzRetryAfter(f *testing.F) {
	for _, value := range []string{"", "120", "-1", "99999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1e9"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if delay := parseRetryAfter(value, time.Unix(1764406800, 0)); delay < 0 || delay > time.Hour {
			t.Fatalf("%q: %s", value, delay)
		}
	})
}

func FuzzSecret(f *testing.F) {
	for _, secret := range []string{"", "plain", secretPrefix, secretPrefix + "c2VjcmV0", secretPrefix + "!"} {
		f.Add(secret)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		if key, err := decodeSecret(secret); err == nil && len(key) > len(secret) {
			t.Fatalf("%q has the key %q", secret, key)
		}
	})
}
