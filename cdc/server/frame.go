package server

import (
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// largeText is how long a string must be to be quoted only when it is written. pieceBytes is how much of it is at a time.
const (
	largeText  = 64 << 10
	pieceBytes = 32 << 10
)

// frame is a JSON message. A value of hundreds of megabytes is in memory once, as it came from Postgres, and not quoted or copied as a whole.
type frame struct {
	text  []byte
	large []largeString
}

// largeString is one that stands at a place of the text.
type largeString struct {
	at   int
	text string
}

// isSmall reports whether all of the frame is in its text.
func (f frame) isSmall() bool { return len(f.large) == 0 }

// writeTo writes all of it, and returns how many bytes that were.
func (f frame) writeTo(w io.Writer) (written int, err error) {
	write := func(data []byte) {
		if err == nil && len(data) > 0 {
			_, err = w.Write(data)
			written += len(data)
		}
	}
	from := 0
	var piece []byte
	for _, one := range f.large {
		write(f.text[from:one.at])
		write([]byte{'"'})
		for rest := one.text; len(rest) > 0 && err == nil; {
			end := cutAtRune(rest, pieceBytes)
			piece, _ = jsontext.AppendQuote(piece[:0], rest[:end])
			write(piece[1 : len(piece)-1])
			rest = rest[end:]
		}
		write([]byte{'"'})
		from = one.at
	}
	write(f.text[from:])
	return written, err
}

// cutAtRune is the largest place up to a limit that is not within a character, and more than zero.
func cutAtRune(text string, limit int) int {
	if len(text) <= limit {
		return len(text)
	}
	for end := limit; end > limit-utf8.UTFMax && end > 0; end-- {
		if utf8.RuneStart(text[end]) {
			return end
		}
	}
	return limit // it is not UTF-8
}
