// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Counts travel as a family of counters in the format of Prometheus, which Envoy's metrics service has: when a counter
// began is its created timestamp, and the last caller, or why there were no keys, its exemplar.
const (
	family = "fairway_callers"

	labelKind      = "kind"
	labelTo        = "destination"
	labelVerdict   = "verdict"
	labelSource    = "source"
	labelAnonymous = "anonymous"
	labelRequests  = "requests"
	labelCaller    = "caller"
	labelWhy       = "why"
)

const set = "true"

// Families packs counts.
func Families(all []Count) []*dto.MetricFamily {
	f := &dto.MetricFamily{Name: proto.String(family), Type: dto.MetricType_COUNTER.Enum()}
	for _, c := range all {
		m := &dto.Metric{Counter: &dto.Counter{
			Value:            proto.Float64(float64(c.Value)),
			CreatedTimestamp: timestamppb.New(c.Since),
			Exemplar: &dto.Exemplar{
				Value: proto.Float64(1), Timestamp: timestamppb.New(c.Last), Label: []*dto.LabelPair{label(labelCaller, c.Caller)},
			},
		}}
		if c.Why != "" {
			m.Counter.Exemplar.Label = append(m.Counter.Exemplar.Label, label(labelWhy, c.Why))
		}
		for _, l := range []*dto.LabelPair{
			label(labelKind, string(c.Kind)), label(labelTo, c.Destination), label(labelVerdict, c.Verdict),
			label(labelSource, c.Source), label(labelAnonymous, flag(c.Anonymous)), label(labelRequests, flag(c.Requests)),
		} {
			if l.GetValue() != "" {
				m.Label = append(m.Label, l)
			}
		}
		f.Metric = append(f.Metric, m)
	}
	return []*dto.MetricFamily{f}
}

func label(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: &name, Value: &value}
}

func flag(is bool) string {
	if is {
		return set
	}
	return ""
}

var errTooMany = fmt.Errorf("a proxy tells of %d counts at most", MaxSeries+MaxKeys)

// Parse is the inverse of Families, of what a proxy says at a time, which nobody else vouches for. Kinds that aren't
// known are left out: a newer release's.
func Parse(families []*dto.MetricFamily, now time.Time) (out []Count, err error) {
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		if len(out)+len(f.GetMetric()) > MaxSeries+MaxKeys {
			return nil, errTooMany
		}
		for _, m := range f.GetMetric() {
			c, err := parse(m, now)
			if err != nil {
				return nil, err
			}
			switch c.Kind {
			case Tried, Refused, Plaintext, Strict, KeysFetched, KeysStale, KeysMissing:
				out = append(out, c)
			}
		}
	}
	return out, nil
}

func parse(m *dto.Metric, now time.Time) (Count, error) {
	v := m.GetCounter().GetValue()
	if math.IsNaN(v) || v < 1 || v > 1<<53 {
		return Count{}, errors.New("a count is a whole number from 1 on")
	}
	c := Count{
		// By Since one count is told from the next, so it stays what it is, however wrong the proxy's clock.
		Value: uint64(v), Since: m.GetCounter().GetCreatedTimestamp().AsTime(),
		Last: timeOf(m.GetCounter().GetExemplar().GetTimestamp(), now),
	}
	for _, l := range m.GetCounter().GetExemplar().GetLabel() {
		switch l.GetName() {
		case labelCaller:
			c.Caller = Text(l.GetValue())
		case labelWhy:
			c.Why = Text(l.GetValue())
		}
	}
	for _, l := range m.GetLabel() {
		switch value := Text(l.GetValue()); l.GetName() {
		case labelKind:
			c.Kind = Kind(value)
		case labelTo:
			c.Destination = value
		case labelVerdict:
			c.Verdict = value
		case labelSource:
			c.Source = value
		case labelAnonymous:
			c.Anonymous = value == set
		case labelRequests:
			c.Requests = value == set
		}
	}
	return c, nil
}

// timeOf never lies in the future: a proxy's clock may be wrong.
func timeOf(t *timestamppb.Timestamp, now time.Time) time.Time {
	if at := t.AsTime(); t.CheckValid() == nil && at.Before(now) {
		return at.UTC()
	}
	return now.UTC()
}

// Text of a proxy as it may stand in a status: not too long, and printable.
func Text(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxText)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
