// Package load sends requests at a fixed rate, whatever becomes of them, and keeps what became of each.
package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Plan says what is sent.
type Plan struct {
	// Rate is in requests per second.
	Rate int
	// Target gives the URL of the router for the next request.
	Target func() string
	// Path and Key of the endpoint.
	Path, Key string
	// Headers of every request.
	Headers map[string]string
}

// Exchange is one request and what became of it.
type Exchange struct {
	ID     string
	Sent   time.Time
	Took   time.Duration
	Router string
	// Status is 0 where there was no answer: Err says why.
	Status     int
	Err        error
	Deployment string
	// Body is the name of the replica, or an error body.
	Body string
}

// Load is under way.
type Load struct {
	plan   Plan
	client *http.Client
	run    string
	stop   chan struct{}
	done   sync.WaitGroup

	mutex     sync.Mutex
	exchanges []Exchange
}

// runs makes the ids of two loads differ.
var runs atomic.Int64

// Start begins to send.
func Start(plan Plan) *Load {
	l := &Load{plan: plan, client: NewClient(), run: fmt.Sprintf("load%d", runs.Add(1)), stop: make(chan struct{})}
	l.done.Add(1)
	go l.send()
	return l
}

// NewClient makes a client that keeps connections, as many as it needs.
func NewClient() *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// Stop ends it, waits for every answer, and gives all exchanges.
func (l *Load) Stop() []Exchange {
	close(l.stop)
	l.done.Wait()
	l.client.CloseIdleConnections()
	return l.exchanges
}

// Once sends one request.
func Once(plan Plan) Exchange {
	l := &Load{plan: plan, client: NewClient(), run: fmt.Sprintf("one%d", runs.Add(1))}
	defer l.client.CloseIdleConnections()
	exchange := Exchange{ID: l.run, Router: plan.Target(), Sent: time.Now()}
	l.exchange(&exchange)
	exchange.Took = time.Since(exchange.Sent)
	return exchange
}

// Since gives the exchanges that are over and were sent after a moment.
func (l *Load) Since(moment time.Time) []Exchange {
	return l.only(func(exchange Exchange) bool { return exchange.Sent.After(moment) })
}

// Until gives the exchanges that were over before a moment.
func (l *Load) Until(moment time.Time) []Exchange {
	return l.only(func(exchange Exchange) bool { return exchange.Sent.Add(exchange.Took).Before(moment) })
}

func (l *Load) only(isMeant func(Exchange) bool) []Exchange {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var some []Exchange
	for _, exchange := range l.exchanges {
		if isMeant(exchange) {
			some = append(some, exchange)
		}
	}
	return some
}

func (l *Load) send() {
	defer l.done.Done()
	began, interval := time.Now(), time.Second/time.Duration(l.plan.Rate)
	for number := 0; ; number++ {
		// By the clock and not by a ticker: one that comes late sends what it owes.
		select {
		case <-l.stop:
			return
		case <-time.After(time.Until(began.Add(time.Duration(number) * interval))):
		}
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			exchange := Exchange{ID: fmt.Sprintf("%s-%d", l.run, number), Router: l.plan.Target(), Sent: time.Now()}
			l.exchange(&exchange)
			exchange.Took = time.Since(exchange.Sent)
			l.mutex.Lock()
			defer l.mutex.Unlock()
			l.exchanges = append(l.exchanges, exchange)
		}()
	}
}

func (l *Load) exchange(exchange *Exchange) {
	request, err := NewRequest(context.Background(), exchange.Router+l.plan.Path, l.plan.Key)
	if err != nil {
		exchange.Err = err
		return
	}
	request.Header.Set("x-ms-client-request-id", exchange.ID)
	for name, value := range l.plan.Headers {
		request.Header.Set(name, value)
	}
	answer, err := l.client.Do(request)
	if err != nil {
		exchange.Err = err
		return
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		exchange.Err = err
		return
	}
	exchange.Status, exchange.Body = answer.StatusCode, string(body)
	exchange.Deployment = answer.Header.Get("azureml-model-deployment")
}

// NewRequest makes a request to score.
func NewRequest(ctx context.Context, url, key string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"data": [[1, 2]]}`))
	if err != nil {
		return nil, err
	}
	request.Header.Set("content-type", "application/json")
	if key != "" {
		request.Header.Set("authorization", "Bearer "+key)
	}
	return request, nil
}
