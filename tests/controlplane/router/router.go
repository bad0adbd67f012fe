// Package router runs the real binary, and reads what it tells: its pages and its access log.
package router

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"scorefront.dev/controlplane/process"
)

const (
	readyWithin = time.Minute
	stopWithin  = time.Minute
)

var client = &http.Client{Timeout: 10 * time.Second}

// Router is a running `scorefront serve`.
type Router struct {
	*process.Process
	Addresses
	// URL is for clients, AdminURL for operators.
	URL, AdminURL string
	accessLog     string
}

// Line is what the tests look at in a line of the access log.
type Line struct {
	ID         string `json:"XMSClientRequestId"`
	Endpoint   string `json:"EndpointName"`
	Deployment string `json:"DeploymentName"`
	Replica    string
	Status     int `json:"ResponseCode"`
	Outcome    string
	Detail     string `json:"ErrorDetail"`
	Attempts   int
}

// Addresses are where a router listens.
type Addresses struct{ Listen, Admin string }

// FreeAddresses finds two that are free.
func FreeAddresses() (Addresses, error) {
	listen, err := process.FreePort()
	if err != nil {
		return Addresses{}, err
	}
	admin, err := process.FreePort()
	return Addresses{fmt.Sprintf("127.0.0.1:%d", listen), fmt.Sprintf("127.0.0.1:%d", admin)}, err
}

// Start runs a router with its files in a folder of its own. It may not be ready yet.
func Start(binary, folder string, at Addresses, arguments ...string) (*Router, error) {
	log := filepath.Join(folder, "access.log")
	arguments = append([]string{
		"serve", "--listen", at.Listen, "--admin", at.Admin, "--access-log", log, "--workers", "2",
	}, arguments...)
	running, err := process.Start(folder, "scorefront", binary, arguments...)
	if err != nil {
		return nil, err
	}
	return &Router{running, at, "http://" + at.Listen, "http://" + at.Admin, log}, nil
}

// AwaitReady waits until it is ready.
func (r *Router) AwaitReady() error {
	return process.Until(readyWithin, "the router is ready", func() error {
		select {
		case <-r.Ended():
			return process.Final{Err: fmt.Errorf("it has ended; it printed:\n%s", r.Quote())}
		default:
		}
		_, err := r.page("/readyz")
		return err
	})
}

// IsReady says whether it takes requests.
func (r *Router) IsReady() bool {
	_, err := r.page("/readyz")
	return err == nil
}

// Finish lets it drain and end, with the exit code of a clean end.
func (r *Router) Finish() error {
	if err := r.Ask(); err != nil {
		return err
	}
	return r.AwaitDrained()
}

// AwaitDrained waits for a router that was asked to end, which must end with the exit code of a clean end.
func (r *Router) AwaitDrained() error {
	if err := r.Await(stopWithin); err != nil {
		return err
	}
	if code := r.ExitCode(); code != 0 {
		return fmt.Errorf("the router ended with %d; it printed:\n%s", code, r.Quote())
	}
	return nil
}

// Snapshot is the page /debug/snapshot.
func (r *Router) Snapshot() (string, error) { return r.page("/debug/snapshot") }

// Metric sums the samples of one name whose labels are among the given ones, such as `kind="Secret"`.
func (r *Router) Metric(name string, labels ...string) (float64, error) {
	text, err := r.page("/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		series, value, found := strings.Cut(line, " ")
		if !found || series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		has := true
		for _, label := range labels {
			has = has && strings.Contains(series, label)
		}
		if number, err := strconv.ParseFloat(value, 64); err == nil && has {
			sum += number
		}
	}
	return sum, nil
}

// Lines reads every whole line of the access log.
func (r *Router) Lines() ([]Line, error) {
	file, err := os.Open(r.accessLog)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var lines []Line
	reader := bufio.NewReader(file)
	for {
		text, err := reader.ReadBytes('\n')
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		var line Line
		if err := json.Unmarshal(text, &line); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", r.accessLog, err, text)
		}
		lines = append(lines, line)
	}
}

// page gets a page of the admin port.
func (r *Router) page(path string) (string, error) {
	answer, err := client.Get(r.AdminURL + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, answer.Status, text)
	}
	return string(text), nil
}

// Shares are the percentages of an endpoint's deployments.
func (r *Router) Shares(endpoint string) (map[string]int, error) {
	text, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	var world struct {
		Endpoints []struct {
			Name        string
			Deployments []struct {
				Name           string
				TrafficPercent *int `json:"traffic_percent"`
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &world); err != nil {
		return nil, fmt.Errorf("/debug/snapshot: %w", err)
	}
	shares := map[string]int{}
	for _, known := range world.Endpoints {
		for _, deployment := range known.Deployments {
			if known.Name == endpoint && deployment.TrafficPercent != nil {
				shares[deployment.Name] = *deployment.TrafficPercent
			}
		}
	}
	return shares, nil
}
