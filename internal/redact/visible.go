// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"regexp"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Visible is a text with escapes for what a terminal would act on, in one line.
func Visible(in string) string {
	return string(bytes.ReplaceAll(visible([]byte(in)), []byte("\n"), []byte(`\n`)))
}

// colours are those of terminals; they say nothing, and would part a name from its value.
var colours = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// visible escapes what can't be printed, but ends of lines and tabs.
func visible(in []byte) []byte {
	if bytes.IndexByte(in, 0x1b) >= 0 {
		in = colours.ReplaceAll(in, nil)
	}
	printable := func(r rune, size int) bool {
		return r == '\n' || r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || size > 1)
	}
	var out []byte // nothing as long as all is printable
	for at := 0; at < len(in); {
		r, size := rune(in[at]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(in[at:])
		}
		switch ok := printable(r, size); {
		case ok && out != nil:
			out = append(out, in[at:at+size]...)
		case !ok:
			if out == nil {
				out = append(make([]byte, 0, len(in)+64), in[:at]...)
			}
			quoted := strconv.QuoteToGraphic(string(in[at : at+size]))
			if unicode.IsSpace(r) { // graphic, but not printable
				quoted = strconv.Quote(string(in[at : at+size]))
			}
			out = append(out, quoted[1:len(quoted)-1]...)
		}
		at += size
	}
	if out == nil {
		return in
	}
	return out
}
