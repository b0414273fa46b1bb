// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/printable"
)

const (
	// maxMessage is what the API server takes as a condition's message, in bytes.
	maxMessage = 32768
	// maxNote is what it takes as an Event's.
	maxNote = 1024
)

// forCondition makes a text the message of a condition: a sentence that the API server takes.
func forCondition(text string) string { return shorten(sentence(text), maxMessage) }

// Fit cuts the messages of conditions that have more than so many bytes in all, each to its part.
func Fit(all []metav1.Condition, most int) []metav1.Condition {
	sum := 0
	for _, c := range all {
		sum += len(c.Message)
	}
	if sum <= most {
		return all
	}
	out := slices.Clone(all)
	for n := range out {
		out[n].Message = shorten(out[n].Message, most/len(out))
	}
	return out
}

// Note makes a text the note of an Event, or the message of a pod's condition, which is read in Events.
func Note(text string) string { return shorten(sentence(text), maxNote) }

// sentence gives a text a capital letter first and a full stop at the end. A first word that is no word of prose, as
// the path of a field or a name with capitals of its own, stays as it is. What others have written, as a script or a
// pattern that is quoted, is harmless for who reads it.
func sentence(text string) string {
	text = strings.TrimRightFunc(strings.TrimSpace(text), func(r rune) bool { return strings.ContainsRune(",;: \n", r) })
	if text == "" {
		return ""
	}
	text = printable.Lines(text)
	word, _, _ := strings.Cut(text, " ")
	if plain(strings.TrimRight(word, ",;:.")) {
		text = string(unicode.ToUpper(rune(text[0]))) + text[1:]
	}
	if last, _ := utf8.DecodeLastRuneInString(text); !strings.ContainsRune(".!?…", last) {
		text += "."
	}
	return text
}

func plain(word string) bool {
	return word != "" && strings.IndexFunc(word, func(r rune) bool { return r < 'a' || r > 'z' }) < 0
}

// shorten cuts a text that has more than so many bytes, and shows that it did.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const more = "…"
	return strings.ToValidUTF8(text[:most-len(more)], "") + more
}
