package activities

import (
	"encoding/binary"
	"encoding/json"
)

// Numbers are integers of rows, packed: those of its members are in the history of a batch several times, and in memory for as
// long as its workflow is cached. As JSON they are a string, the packed bytes in base64; an array of numbers is read too. The
// zero value has none.
type Numbers []byte

// PackNumbers packs numbers; those close to the one before them take the least.
func PackNumbers(numbers []int64) Numbers {
	buffer := make([]byte, 0, 3*len(numbers)) // enough for most, and copied below to what it takes
	var before int64
	for _, n := range numbers {
		buffer = binary.AppendVarint(buffer, n-before) // wraps around, and back again in All
		before = n
	}
	return append(Numbers(nil), buffer...)
}

// Len is how many there are.
func (n Numbers) Len() (count int) {
	for _, b := range n {
		if b < 0x80 { // the last byte of one
			count++
		}
	}
	return count
}

// All are the numbers, in their order.
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
		return json.Unmarshal(encoded, (*[]byte)(n))
	}
	var all []int64
	if err := json.Unmarshal(encoded, &all); err != nil {
		return err
	}
	*n = PackNumbers(all)
	return nil
}
