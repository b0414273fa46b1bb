// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCountsOfTheTestTool(t *testing.T) {
	got, err := counts("91 200 reviews-v1\n9 error Get \"http://stock/\": context deadline exceeded (Client.Timeout " +
		"exceeded)\n" +
		"1 error Get \"http://a/\": read tcp 10.0.0.1:2->10.0.0.2:80: read: connection reset by peer\n")
	require.NoError(t, err)
	assert.Equal(t, []count{
		{91, "200 reviews-v1"}, {9, "no answer: context deadline exceeded"}, {1, "no answer: connection reset by peer"},
	}, got)
	_, err = counts("")
	assert.Error(t, err)
	_, err = counts("what?\n")
	assert.Error(t, err)
}

func TestExpectations(t *testing.T) {
	split := shares{"200 v1": {0.8, 0.98}, "200 v2": {0.02, 0.2}}
	for name, c := range map[string]struct {
		want expectation
		got  []count
		ok   bool
	}{
		"within bounds":          {split, []count{{90, "200 v1"}, {10, "200 v2"}}, true},
		"no weights at all":      {split, []count{{50, "200 v1"}, {50, "200 v2"}}, false},
		"one version only":       {split, []count{{100, "200 v1"}}, false},
		"an answer too many":     {split, []count{{90, "200 v1"}, {9, "200 v2"}, {1, "503"}}, false},
		"all of a kind":          {all("200 v2"), []count{{100, "200 v2"}}, true},
		"all but one of a kind":  {all("200 v2"), []count{{99, "200 v2"}, {1, "200 v1"}}, false},
		"some without an answer": {someUnanswered{}, []count{{5, "200 stock-1"}, {7, unanswered + "deadline"}}, true},
		"all answered":           {someUnanswered{}, []count{{12, "200 stock-1"}}, false},
		"none answered":          {someUnanswered{}, []count{{12, unanswered + "deadline"}}, false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.ok, c.want.check(c.got) == nil) })
	}
}

func TestParsePacket(t *testing.T) {
	packet := []byte{
		0x45, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4, TCP
		0x1f, 0x90, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0, // port 8080 to 80
		'G', 'E', 'T', ' ',
	}
	s, ok := parse(append(packet, 0, 0)) // a frame may be padded
	require.True(t, ok)
	assert.Equal(t, "10.0.0.1:8080", s.from.String())
	assert.Equal(t, "10.0.0.2:80", s.to.String())
	assert.Equal(t, "GET ", string(s.payload))
	for n := range len(packet) {
		_, ok := parse(packet[:n])
		assert.False(t, ok, "%d bytes", n)
	}
	assert.False(t, tlsRecord(s.payload))
	assert.True(t, tlsRecord([]byte{0x16, 3, 1, 2, 0, 1}))
}

func TestBars(t *testing.T) {
	var out bytes.Buffer
	(&ui{out: &out}).bars([]count{{3, "200 a"}, {1, "500"}})
	assert.Equal(t, "   200 a ██████████████████████████████████████                3   75%\n"+
		"   500   █████████████                                         1   25%\n", out.String())
}
