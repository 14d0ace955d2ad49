package workflows

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// MaxID is how many characters of a workflow's id a Temporal server with SQL persistence stores.
const MaxID = 255

// EscapeID escapes an id to printable ASCII. '~' is escaped too, because ShortenID uses it.
func EscapeID(id string) string {
	isPlain := func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' && c != '~' }
	escape := false
	for i := range len(id) {
		escape = escape || !isPlain(id[i])
	}
	if !escape {
		return id
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&0xF]}) // workflow code may not call fmt
		}
	}
	return b.String()
}

// ShortenID returns a name of at most limit characters: it cuts a longer one, but not within a %XX, and appends a hash
// of the whole.
func ShortenID(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	const hashed = 16
	sum := sha256.Sum256([]byte(name))
	end := "~" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:hashed]))
	cut := limit - len(end)
	if at := strings.LastIndexByte(name[:cut], '%'); at >= 0 && at > cut-len("%XX") {
		cut = at
	}
	return name[:cut] + end
}
