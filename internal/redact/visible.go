// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"regexp"

	"github.com/fairway-mesh/fairway/internal/printable"
)

// colours are those of terminals; they say nothing, and would part a name from its value.
var colours = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// visible escapes what can't be printed, but ends of lines and tabs.
func visible(in []byte) []byte {
	if bytes.IndexByte(in, 0x1b) >= 0 {
		in = colours.ReplaceAll(in, nil)
	}
	return []byte(printable.Text(string(in)))
}
