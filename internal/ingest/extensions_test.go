// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is wrong with a script says where, and repeats nothing of it.
func TestBadScriptsAreNotRepeated(t *testing.T) {
	for source, want := range map[string]string{
		"local x = 1\n 'sk-live \x1b[2J'":            "it is not Lua: line 2, column 15: syntax error",
		"x = 'sk-live":                               "it is not Lua: ",
		"--[==[sk-live":                              "it is not Lua: ",
		"function f( -- sk-live":                     "it is not Lua: something is missing at its end",
		"local sk-live = 1":                          "it is not Lua: ",
		"x = 1 \x01 sk-live":                         "it is not Lua: ",
		"x = '" + strings.Repeat("sk-live", 1000):    "it is not Lua: ",
		"local x = 1 -- calls nothing, says sk-live": "it defines neither",
	} {
		why := badScript(source)
		require.Contains(t, why, want)
		require.NotContains(t, why, "sk")
		require.Less(t, len(why), 200)
		require.NotContains(t, why, "\x1b")
	}
	require.Empty(t, badScript("function envoy_on_request(h) end"))
}
