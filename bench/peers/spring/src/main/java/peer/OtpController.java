package peer;

import com.google.i18n.phonenumbers.NumberParseException;
import com.google.i18n.phonenumbers.PhoneNumberUtil;
import com.google.i18n.phonenumbers.PhoneNumberUtil.PhoneNumberFormat;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.HttpStatus;
import org.springframework.http.ProblemDetail;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.bind.annotation.RestControllerAdvice;
import org.springframework.web.servlet.mvc.method.annotation.ResponseEntityExceptionHandler;

@RestController
class OtpController {
    record NumberRequest(String mobileNumber) {}

    record VerifyRequest(String mobileNumber, String otp) {}

    record Verified(String mobileNumber, boolean verified) {}

    private final PhoneNumberUtil numbers = PhoneNumberUtil.getInstance();
    private final OtpService service;

    OtpController(OtpService service) {
        this.service = service;
    }

    @PostMapping("/generate-otp")
    @ResponseStatus(HttpStatus.CREATED)
    Otp.Issued generate(@RequestBody NumberRequest request) {
        return service.generate(canonical(request.mobileNumber()));
    }

    @PostMapping("/resend-otp")
    Otp.Issued resend(@RequestBody NumberRequest request) {
        return service.resend(canonical(request.mobileNumber()));
    }

    @PostMapping("/regenerate-otp")
    @ResponseStatus(HttpStatus.CREATED)
    Otp.Issued regenerate(@RequestBody NumberRequest request) {
        return service.regenerate(canonical(request.mobileNumber()));
    }

    @PostMapping("/verify-otp")
    Verified verify(@RequestBody VerifyRequest request) {
        var mobileNumber = canonical(request.mobileNumber());
        if (!isCode(request.otp())) {
            throw OtpProblem.BAD_CODE.exception();
        }
        service.verify(mobileNumber, request.otp());
        return new Verified(mobileNumber, true);
    }

    @GetMapping("/healthz")
    Map<String, String> health() {
        return Map.of("status", "ok");
    }

    private String canonical(String mobileNumber) {
        try {
            var parsed = numbers.parse(mobileNumber, null);
            if (numbers.isValidNumber(parsed)) {
                return numbers.format(parsed, PhoneNumberFormat.E164);
            }
        } catch (NumberParseException e) {
            // Answered below.
        }
        throw OtpProblem.BAD_NUMBER.exception();
    }

    private static boolean isCode(String otp) {
        return otp != null && otp.length() == 6 && otp.chars().allMatch(c -> c >= '0' && c <= '9');
    }

    /** Answers every error as a problem; the base class does so for Spring's own. */
    @RestControllerAdvice
    static class Problems extends ResponseEntityExceptionHandler {
        private static final Logger LOG = LoggerFactory.getLogger(Problems.class);

        @ExceptionHandler
        ResponseEntity<ProblemDetail> refused(OtpProblem.Refused refused) {
            return ResponseEntity.of(refused.problem.detail()).build();
        }

        @ExceptionHandler
        ResponseEntity<ProblemDetail> failed(Exception e) {
            LOG.error("a call failed", e);
            return ResponseEntity.of(ProblemDetail.forStatus(HttpStatus.INTERNAL_SERVER_ERROR)).build();
        }
    }
}
