package activities

import (
	"encoding/binary"
	"encoding/json"
	"errors"
)

// Numbers are packed integers of rows: a batch's history has the ids of its members several times, and memory has them
// while its workflow is cached. As JSON they are a string, the packed bytes in base64; an array of numbers is accepted
// too. The zero value has none.
type Numbers []byte

// PackNumbers packs numbers. A number that is close to the one before it takes the least space.
func PackNumbers(numbers []int64) Numbers {
	buffer := make([]byte, 0, 3*len(numbers)) // enough for most; the copy below has the exact size
	var before int64
	for _, n := range numbers {
		buffer = binary.AppendVarint(buffer, n-before) // wraps around, and back again in All
		before = n
	}
	return append(Numbers(nil), buffer...)
}

// Len returns how many numbers there are.
func (n Numbers) Len() (count int) {
	for _, b := range n {
		if b < 0x80 { // the last byte of one
			count++
		}
	}
	return count
}

// All returns the numbers, in their order.
func (n Numbers) All() []int64 {
	all := make([]int64, 0, n.Len())
	var before int64
	for rest := []byte(n); len(rest) > 0; {
		difference, size := binary.Varint(rest)
		if size <= 0 {
			break // it was cut off: Len did not count it
		}
		before += difference
		all, rest = append(all, before), rest[size:]
	}
	return all
}

// UnmarshalJSON implements [json.Unmarshaler].
func (n *Numbers) UnmarshalJSON(encoded []byte) error {
	if len(encoded) > 0 && encoded[0] == '"' {
		if err := json.Unmarshal(encoded, (*[]byte)(n)); err != nil {
			return err
		}
		if len(n.All()) != n.Len() {
			return errors.New("a number of a batch's members has more than 64 bits") // otherwise those after it would be left out
		}
		return nil
	}
	var all []int64
	if err := json.Unmarshal(encoded, &all); err != nil {
		return err
	}
	*n = PackNumbers(all)
	return nil
}
