// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"strings"
)

// expectation is what the answers to many requests must be like. What the demo shows, it also checks.
type expectation interface {
	check(got []count) error
}

// shares bounds the share of each kind of answer. Other kinds must not come.
type shares map[string][2]float64

// all wants one kind of answer only.
func all(kind string) expectation { return shares{kind: {1, 1}} }

func (s shares) check(got []count) error {
	total, of := 0, map[string]int{}
	for _, c := range got {
		total += c.n
		of[c.name] += c.n
		if _, ok := s[c.name]; !ok {
			return fmt.Errorf("%d requests ended with %q, which was not to come", c.n, c.name)
		}
	}
	for kind, bounds := range s {
		share := float64(of[kind]) / float64(total)
		if share < bounds[0] || share > bounds[1] {
			return fmt.Errorf("%d of %d requests ended with %q: want %.0f to %.0f %%", of[kind], total, kind, 100*bounds[0],
				100*bounds[1])
		}
	}
	return nil
}

// someUnanswered wants requests without an answer, and others with one.
type someUnanswered struct{}

func (someUnanswered) check(got []count) error {
	answered, not := 0, 0
	for _, c := range got {
		if strings.HasPrefix(c.name, unanswered) {
			not += c.n
		} else {
			answered += c.n
		}
	}
	if answered == 0 || not == 0 {
		return errors.New("some requests were to get an answer, and some none")
	}
	return nil
}
