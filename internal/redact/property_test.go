// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// shapes are texts with a secret, which is §. A secret has letters and digits.
var shapes = []string{
	"password=§", "PASSWORD: §", "db.password = §", `"password":"§"`, `\"token\":\"§\"`, "'secret': '§'", "apiKey=§", "api_key: §",
	"MYSQL_PWD=§", "x-auth: §", "pass=§", "pin: §", "client_secret=§&x=1", "session_id=§", "Cookie: a=b; c=§",
	`Set-Cookie: a="b"; c=§`, "Authorization: Custom a b §", `{"authorization":"Custom §"}`, "Bearer §", "basic §",
	"https://u:§@h/p", "https://h/p?key=§&x=y", "https://h/p?token%3D§", "u:§@tcp(h:1)/d", "--password §", "--api-key=§",
	"--client-secret \"§\"", "the password is §", "mysql -h x -p§", "'x-api-key', '§'",
	"-----BEGIN PRIVATE KEY-----\n§\n-----END PRIVATE KEY-----", `-----BEGIN RSA PRIVATE KEY-----\n§`,
	"-----BEGIN PGP PRIVATE KEY BLOCK-----\n§", "§\n-----END EC PRIVATE KEY-----", "token:\n  §", "secret: |\n  x\n  §",
	`x line:1(column:2) near '§':   syntax error`, `[string "a = '§'"]:1: x`, "password=\x1b[31m§",
}

// around are texts that a secret may be in.
var around = []string{
	"%s", "2026-01-01T00:00:00Z info: %s", `{"level":"info","ts":"x","n":12,"msg":"a"} %s`, "a\n%s\nb", "don't: %s", `say "x" %s`,
}

func secretOf(r *rand.Rand) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	out := []byte("Zq") // so that no text has it by chance, and it is no figure
	for range 10 + r.IntN(30) {
		out = append(out, letters[r.IntN(len(letters))])
	}
	return string(out)
}

// A planted secret survives in none of the known shapes, and what is redacted stays as it is.
func TestPlantedSecrets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) // a test that can be repeated
	check := func(text, secret string) {
		got := String(text)
		require.NotContains(t, got, secret, text)
		require.Equal(t, got, String(got), text)
	}
	for range 20 {
		secret := secretOf(r)
		for _, in := range around {
			for _, shape := range shapes {
				check(fmt.Sprintf(in, strings.ReplaceAll(shape, "§", secret)), secret)
				// The same in a string of JSON, which stays one.
				doc, err := json.Marshal(map[string]any{"message": fmt.Sprintf(in, strings.ReplaceAll(shape, "§", secret))})
				require.NoError(t, err)
				out, err := JSON(t.Context(), doc)
				require.NoError(t, err)
				require.NotContains(t, string(out), secret, shape)
				require.True(t, json.Valid(out))
			}
		}
		for _, f := range wellKnown {
			secret := secretOf(r)
			text := strings.ReplaceAll(f.example, "#", secret)
			check("x "+text+" y", secret)
			require.Contains(t, String("x "+text+" y"), Mark, f.name)
			for _, w := range f.words {
				require.Equal(t, strings.ToLower(w), w, "the words of %s are in lower case", f.name)
			}
		}
	}
}

// Whatever comes, it is done once for all, JSON stays JSON, and figures stay.
func FuzzRedact(f *testing.F) {
	for _, s := range append(shapes, around...) {
		f.Add(strings.ReplaceAll(s, "§", "Zqabcdefgh"), 77001)
	}
	for _, k := range wellKnown {
		f.Add(strings.ReplaceAll(k.example, "#", "Zqabcdefgh"), 77001)
	}
	f.Fuzz(func(t *testing.T, text string, figure int) {
		once := String(text)
		if twice := String(once); twice != once {
			t.Fatalf("%q becomes %q, and that %q", text, once, twice)
		}
		doc, err := json.Marshal(map[string]any{
			"text": text, "list": []any{text}, "stats": []any{map[string]any{"name": "cx_total", "value": fmt.Sprint(figure)}},
			"n": figure,
		})
		require.NoError(t, err)
		out, err := JSON(context.Background(), doc)
		require.NoError(t, err)
		var back struct {
			N     json.Number
			Stats []struct{ Name, Value string }
		}
		require.NoError(t, json.Unmarshal(out, &back))
		require.Equal(t, fmt.Sprint(figure), back.N.String())
		require.Equal(t, fmt.Sprint(figure), back.Stats[0].Value)
	})
}

// hard are texts that make expressions look far.
func hard(size int) map[string][]byte {
	out := map[string][]byte{}
	for name, piece := range map[string]string{
		"a log":    "2026-01-01T00:00:00Z {\"msg\":\"connected\",\"token\":\"x\"} GET /a?b=c password=x\n",
		"one line": `token password=x "cookie: a" `,
		"words":    "secret", "spaces after": "token   \t", "quotes": `password:\"`, "queries": "?a=b&", "ats": "a:b@",
		"begins": "-----BEGIN PRIVATE KEY-----", "ends": "-----END PRIVATE KEY-----", "near": "near '", "chunks": `[string "`,
		"commands": "mysql -p", "escapes": "\x1b\x00", "headers": "cookie: ", "pairs": `\n'a', '`, "dashes": "--token ",
	} {
		out[name] = bytes.Repeat([]byte(piece), size/len(piece))
	}
	return out
}

// It ends with its context.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Text(ctx, []byte("a"))
	require.ErrorIs(t, err, context.Canceled)
	_, err = JSON(ctx, []byte("["+strings.Repeat("1,", 1000)+"1]"))
	require.ErrorIs(t, err, context.Canceled)
}

func BenchmarkText(b *testing.B) {
	for name, text := range hard(1 << 20) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, _ = Text(b.Context(), text)
			}
		})
	}
}
