package server

import (
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// largeText is the length from which a string is quoted only when it is written, in pieces of pieceBytes.
const (
	largeText  = 64 << 10
	pieceBytes = 32 << 10
)

// frame is a JSON message. A value of hundreds of megabytes is in memory once, as it came from Postgres, and is never quoted or copied as a
// whole.
type frame struct {
	text  []byte
	large []largeString
}

// largeString is a string to insert at an offset of the text.
type largeString struct {
	at   int
	text string
}

// isSmall reports whether the text is the whole message.
func (f frame) isSmall() bool { return len(f.large) == 0 }

// writeTo writes the message, and returns how many bytes it had.
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

// cutAtRune returns the largest offset up to a limit that does not split a character. It is more than 0.
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
